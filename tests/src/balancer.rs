//! A small balancer: connections go to a program that says it is ready, as seen by asking each of them again and again.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How often each program is asked.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// A balancer that ends with this value.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    seats: Arc<Mutex<Vec<Seat>>>,
    _serving: JoinSet<()>,
}

/// A place behind the balancer.
#[derive(Clone, Copy, Debug, Default)]
struct Seat {
    address: Option<SocketAddr>,
    is_ready: bool,
}

type Seats = Arc<Mutex<Vec<Seat>>>;

impl Balancer {
    /// A balancer with so many places behind it, all empty.
    pub async fn start(seats: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seats = Arc::new(Mutex::new(vec![Seat::default(); seats]));
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, Arc::clone(&seats)));
        serving.spawn(look(Arc::clone(&seats)));
        Self {
            address,
            seats,
            _serving: serving,
        }
    }

    /// Its address as a client would write it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts a program at a place; it gets connections once it is ready.
    pub fn seat(&self, place: usize, address: SocketAddr) {
        locked(&self.seats)[place] = Seat {
            address: Some(address),
            is_ready: false,
        };
    }

    /// Whether the program at this place is taken for ready.
    pub fn takes(&self, place: usize) -> bool {
        locked(&self.seats)[place].is_ready
    }
}

fn locked(seats: &Seats) -> std::sync::MutexGuard<'_, Vec<Seat>> {
    seats.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, seats: Seats) {
    let mut talks = JoinSet::new();
    let mut turn = 0;
    loop {
        let Ok((mut client, _)) = listener.accept().await else {
            continue;
        };
        turn += 1;
        let ready: Vec<SocketAddr> = locked(&seats)
            .iter()
            .filter_map(|seat| seat.address.filter(|_| seat.is_ready))
            .collect();
        talks.spawn(async move {
            // With nobody ready, the client sees its connection close, which counts as a failure.
            let Some(program) = ready.get(turn % ready.len().max(1)) else {
                return;
            };
            let Ok(mut program) = TcpStream::connect(program).await else {
                return;
            };
            let _ = copy_bidirectional(&mut client, &mut program).await;
        });
    }
}

async fn look(seats: Seats) {
    loop {
        let all = locked(&seats).clone();
        for (place, seat) in all.iter().enumerate() {
            let Some(address) = seat.address else {
                continue;
            };
            let is_ready = is_ready(address).await;
            let mut seats = locked(&seats);
            if seats[place].address == Some(address) {
                seats[place].is_ready = is_ready;
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn is_ready(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return false;
    };
    let request = b"GET /readyz HTTP/1.1\r\nHost: balancer\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    stream.write_all(request).await.is_ok()
        && stream.read_to_end(&mut answer).await.is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}
