//! One connection: carries bytes both ways until an end or a fault ends it. Decides no fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

use crate::counts::{Counters, add};
use crate::fault::{Fault, Faults};
use crate::proxy::Target;

/// The most that is carried at once.
const PIECE: usize = 16 * 1024;

/// Both ends are to be reset.
struct Broken;

enum Server {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Server {
    async fn reach(target: &Target) -> std::io::Result<Self> {
        match target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Target::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
        }
    }

    fn split(
        &mut self,
    ) -> (
        Box<dyn AsyncRead + Send + Unpin + '_>,
        Box<dyn AsyncWrite + Send + Unpin + '_>,
    ) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.split();
                (Box::new(read), Box::new(write))
            }
            Self::Unix(stream) => {
                let (read, write) = stream.split();
                (Box::new(read), Box::new(write))
            }
        }
    }

    /// A unix socket knows no RST; there its peer sees an end.
    fn reset(&self) {
        if let Self::Tcp(stream) = self {
            let _ = stream.set_zero_linger();
        }
    }
}

/// Carries everything between a client and the target, until both have said all or the connection breaks.
pub(crate) async fn carry(
    mut client: TcpStream,
    target: Target,
    faults: Arc<Faults>,
    counters: Arc<Counters>,
) {
    let _open = Open::new(&counters);
    let mut server = None;
    let carried = tokio::select! {
        biased;
        () = reset_ordered(&faults) => {
            add(&counters.reset, 1);
            Err(Broken)
        }
        carried = both(&mut client, &mut server, &target, &faults, &counters) => carried,
    };
    if let Err(Broken) = carried {
        let _ = client.set_zero_linger();
        if let Some(server) = &server {
            server.reset();
        }
    }
}

/// A reset must not wait for a piece that nobody takes, so it is not the directions that look for it.
async fn reset_ordered(faults: &Faults) {
    let (mut up, mut down) = (faults.up.subscribe(), faults.down.subscribe());
    tokio::select! {
        _ = up.wait_for(|fault| *fault == Fault::Reset) => {}
        _ = down.wait_for(|fault| *fault == Fault::Reset) => {}
    }
}

async fn both(
    client: &mut TcpStream,
    server: &mut Option<Server>,
    target: &Target,
    faults: &Faults,
    counters: &Counters,
) -> Result<(), Broken> {
    let (mut of_up, of_down) = (faults.up.subscribe(), faults.down.subscribe());
    let (mut from_client, mut to_client) = client.split();
    // What goes into a black hole reaches no server, not even the call.
    if *of_up.borrow() == Fault::BlackHole {
        add(&counters.swallowed, 1);
        return swallow(&mut from_client, &mut of_up).await;
    }
    let Ok(reached) = Server::reach(target).await else {
        add(&counters.unreachable, 1);
        return Err(Broken);
    };
    let (mut from_server, mut to_server) = server.insert(reached).split();
    tokio::try_join!(
        one_way(
            &mut from_client,
            &mut to_server,
            of_up,
            &counters.bytes_up,
            counters
        ),
        one_way(
            &mut from_server,
            &mut to_client,
            of_down,
            &counters.bytes_down,
            counters
        ),
    )
    .map(|((), ())| ())
}

/// What to do next in one direction.
enum Step {
    Piece(usize),
    NewOrders,
}

async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut orders: watch::Receiver<Fault>,
    arrived: &AtomicU64,
    counters: &Counters,
) -> Result<(), Broken> {
    let mut piece = vec![0; PIECE];
    let mut left = None;
    loop {
        let fault = *orders.borrow_and_update();
        let most = match fault {
            // A reset is looked for by whoever owns both directions.
            Fault::Hold | Fault::Reset => {
                left = None;
                orders.changed().await.map_err(|_| Broken)?;
                continue;
            }
            Fault::BlackHole => {
                if let Blackness::Lost = black_hole(from, &mut orders).await? {
                    add(&counters.swallowed, 1);
                    return swallow(from, &mut orders).await;
                }
                left = None;
                continue;
            }
            Fault::CutAfter(bytes) => *left.get_or_insert(bytes),
            Fault::Pass | Fault::Delay(_) => {
                left = None;
                PIECE as u64
            }
        };
        if most == 0 {
            add(&counters.cut, 1);
            return Err(Broken);
        }
        let most = usize::try_from(most).unwrap_or(PIECE).min(PIECE);
        let step = tokio::select! {
            biased;
            changed = orders.changed() => changed.map(|()| Step::NewOrders).map_err(|_| Broken)?,
            read = from.read(&mut piece[..most]) => Step::Piece(read.map_err(|_| Broken)?),
        };
        let Step::Piece(read) = step else { continue };
        if read == 0 {
            // Whoever has said all may still listen.
            let _ = to.shutdown().await;
            return Ok(());
        }
        if let Fault::Delay(duration) = fault {
            tokio::time::sleep(duration).await;
        }
        to.write_all(&piece[..read]).await.map_err(|_| Broken)?;
        to.flush().await.map_err(|_| Broken)?;
        add(arrived, read as u64);
        left = left.map(|left| left.saturating_sub(read as u64));
    }
}

/// Whether a connection survived a black hole.
enum Blackness {
    Lost,
    Passed,
}

/// Waits for the end of the black hole, or for the first bytes, or the end, that are lost in it.
async fn black_hole(
    from: &mut (impl AsyncRead + Unpin),
    orders: &mut watch::Receiver<Fault>,
) -> Result<Blackness, Broken> {
    let mut lost = [0; 1024];
    tokio::select! {
        biased;
        changed = orders.changed() => changed.map(|()| Blackness::Passed).map_err(|_| Broken),
        _ = from.read(&mut lost) => Ok(Blackness::Lost),
    }
}

/// Reads and drops to the end. That is told to nobody while the hole is there; afterwards the other end is reset, as by
/// a keepalive that found nobody.
async fn swallow(
    from: &mut (impl AsyncRead + Unpin),
    orders: &mut watch::Receiver<Fault>,
) -> Result<(), Broken> {
    let mut lost = vec![0; PIECE];
    while from.read(&mut lost).await.is_ok_and(|read| read > 0) {}
    let _ = orders.wait_for(|fault| *fault != Fault::BlackHole).await;
    Err(Broken)
}

/// Counts a connection for as long as it is there.
struct Open<'a>(&'a Counters);

impl<'a> Open<'a> {
    fn new(counters: &'a Counters) -> Self {
        add(&counters.open, 1);
        Self(counters)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
