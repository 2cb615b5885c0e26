//! The door: takes connections, hands each to a task, and keeps the orders for those established and those to come.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::connection::carry;
use crate::counts::{Counters, Counts, add};
use crate::fault::{Direction, Fault, Faults, Reach};

/// Connections that wait to be taken.
const WAITING: u32 = 1024;
const PAUSE: Duration = Duration::from_millis(10);

/// Where connections are passed on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// A proxy on a port of its own on loopback; dropping it ends every connection.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    wanted: watch::Sender<Door>,
    door: watch::Receiver<Door>,
    _taking: JoinSet<()>,
    /// Bound and never listening: the port stays ours while the door is closed.
    _port: TcpSocket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Open,
    Closed,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<Target>,
    /// What holds for those to come.
    coming: Faults,
    established: Mutex<Vec<Weak<Faults>>>,
    counters: Arc<Counters>,
}

impl Proxy {
    /// Begins to pass connections on.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(target: Target) -> io::Result<Self> {
        let port = TcpSocket::new_v4()?;
        port.set_reuseaddr(true)?;
        port.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = port.local_addr()?;
        let listener = listen(address)?;
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            coming: Faults::new(Fault::Pass, Fault::Pass),
            established: Mutex::default(),
            counters: Arc::default(),
        });
        let wanted = watch::Sender::new(Door::Open);
        let (tell, door) = watch::channel(Door::Open);
        let mut taking = JoinSet::new();
        taking.spawn(take(
            Arc::clone(&shared),
            listener,
            wanted.subscribe(),
            tell,
        ));
        Ok(Self {
            address,
            shared,
            wanted,
            door,
            _taking: taking,
            _port: port,
        })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Orders a fault; each order replaces the one before for the connections and directions that it names.
    pub fn set(&self, reach: Reach, direction: Direction, fault: Fault) {
        // Under this lock none comes between the two, so that `All` leaves none out.
        let mut established = lock(&self.shared.established);
        if reach != Reach::Established {
            self.shared.coming.set(direction, fault);
        }
        established.retain(|faults| {
            let there = faults.upgrade();
            if let (Some(faults), true) = (&there, reach != Reach::New) {
                faults.set(direction, fault);
            }
            there.is_some()
        });
    }

    /// Resets every established connection; new ones are taken as ordered before.
    pub fn reset_established(&self) {
        self.set(Reach::Established, Direction::Both, Fault::Reset);
    }

    /// Everything passes, everywhere; what has lost bytes stays dead.
    pub fn pass(&self) {
        self.set(Reach::All, Direction::Both, Fault::Pass);
    }

    /// Refuses new connections, from when this returns.
    pub async fn refuse(&self) {
        self.turn(Door::Closed).await;
    }

    /// Takes new connections again, from when this returns.
    pub async fn admit(&self) {
        self.turn(Door::Open).await;
    }

    /// Sends new connections elsewhere.
    pub fn target(&self, target: Target) {
        *lock(&self.shared.target) = target;
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }

    async fn turn(&self, door: Door) {
        self.wanted.send_replace(door);
        // Ends in error only when the proxy does.
        let _ = self.door.clone().wait_for(|now| *now == door).await;
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING)
}

/// Takes connections while the door is open, and owns their tasks.
async fn take(
    shared: Arc<Shared>,
    listener: TcpListener,
    mut wanted: watch::Receiver<Door>,
    door: watch::Sender<Door>,
) {
    let Ok(address) = listener.local_addr() else {
        return;
    };
    let mut listener = Some(listener);
    let mut carrying = JoinSet::new();
    loop {
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = *wanted.borrow_and_update();
                listener = match now {
                    Door::Closed => None,
                    Door::Open => listener.or_else(|| listen(address).ok()),
                };
                door.send_replace(now);
            }
            client = accept(listener.as_ref()) => {
                let faults = shared.enter();
                let target = lock(&shared.target).clone();
                carrying.spawn(carry(client, target, faults, Arc::clone(&shared.counters)));
            }
            Some(_) = carrying.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let _ = client.set_nodelay(true);
                return client;
            }
            // Out of files, or a client that is gone already.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

impl Shared {
    fn enter(&self) -> Arc<Faults> {
        let mut established = lock(&self.established);
        let faults = Arc::new(Faults::like(&self.coming));
        established.push(Arc::downgrade(&faults));
        add(&self.counters.accepted, 1);
        faults
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
