//! Hears from the plugin what its calls took: a datagram each, on a socket in the directory of the node's state.
//!
//! The plugin does not wait: what comes faster than it is read is lost once the socket is full
//! (`net.unix.max_dgram_qlen`, 512 where systemd runs).

use std::{
    fs::{self, Permissions},
    io::ErrorKind,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use beeline::{
    cni::tell::{SOCKET, Told, is_told},
    node::directory,
};
use tokio::{net::UnixDatagram, time};

use crate::metrics::{Ignored, Metrics};

/// What is longer is not the plugin's.
const MAX_LEN: usize = 1024;

/// After so long without a call, it is looked whether the plugin still finds the socket.
const LOOK: Duration = Duration::from_secs(60);

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Listens in this directory, which is made if need be, until the process ends.
///
/// # Errors
///
/// The socket cannot be made, or others than root could replace it.
pub(crate) async fn receive(state_dir: &Path, metrics: Arc<Metrics>) -> Result<()> {
    receive_looking(state_dir, metrics, LOOK).await
}

async fn receive_looking(state_dir: &Path, metrics: Arc<Metrics>, look: Duration) -> Result<()> {
    let mut socket = Socket::bind(state_dir)?;
    let mut buffer = [0; MAX_LEN + 1];
    loop {
        match time::timeout(look, socket.socket.recv(&mut buffer)).await {
            Ok(Ok(length)) => hear(&buffer[..length], &metrics),
            Ok(Err(error)) => {
                tracing::warn!("{}: receive: {error}", socket.path.display());
                time::sleep(PAUSE).await;
            }
            // With the last pod of the last network somebody may have removed the directory.
            Err(_) if socket.is_there() => {}
            Err(_) => match Socket::bind(state_dir) {
                Ok(anew) => socket = anew,
                Err(error) => tracing::warn!("{error:#}"),
            },
        }
    }
}

fn hear(datagram: &[u8], metrics: &Metrics) {
    let told = match datagram.len() {
        0..=MAX_LEN => Told::parse(datagram),
        _ => return metrics.ignored(Ignored::Malformed),
    };
    match told {
        Ok(Some(told)) if is_told(&told.command) => metrics.called(&told),
        Ok(None) => metrics.ignored(Ignored::Version),
        Ok(Some(_)) | Err(_) => metrics.ignored(Ignored::Malformed),
    }
}

/// The socket, and its file, which goes with it.
#[derive(Debug)]
struct Socket {
    socket: UnixDatagram,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Makes the socket, in the place of one that an agent left that was killed.
    fn bind(state_dir: &Path) -> Result<Self> {
        directory::make(state_dir)?;
        let path = state_dir.join(SOCKET);
        let bind = || -> Result<Self> {
            // By rename: the file is never missing, nor there with another mode.
            let temporary = state_dir.join(format!(".new-{SOCKET}"));
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            let socket = UnixDatagram::bind(&temporary)?;
            fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
            let inode = fs::symlink_metadata(&temporary)?.ino();
            fs::rename(&temporary, &path)?;
            Ok(Self {
                socket,
                path: path.clone(),
                inode,
            })
        };
        bind().with_context(|| format!("{}: bind", path.display()))
    }

    /// Whether the file is still this socket's.
    fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Another agent may have taken the place.
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod netns_tests {
    use std::os::unix::net::UnixDatagram as Sender;

    use super::*;
    use crate::metrics::exposition::Exposition;

    const LOOK_OFTEN: Duration = Duration::from_millis(20);

    /// A receiver in a directory that nobody else can write to, and its metrics.
    struct Receiver {
        metrics: Arc<Metrics>,
        directory: tempfile::TempDir,
        task: tokio::task::JoinHandle<Result<()>>,
    }

    impl Receiver {
        async fn start() -> Self {
            // Others can write to /tmp, where the receiver would not listen.
            let directory = tempfile::tempdir_in("/run").unwrap();
            let metrics = Arc::new(Metrics::new());
            let (path, told) = (directory.path().to_owned(), Arc::clone(&metrics));
            let task = tokio::spawn(async move { receive_looking(&path, told, LOOK_OFTEN).await });
            let receiver = Self {
                metrics,
                directory,
                task,
            };
            until(|| receiver.socket().exists()).await;
            receiver
        }

        fn socket(&self) -> PathBuf {
            self.directory.path().join(SOCKET)
        }

        fn send(&self, datagram: &[u8]) {
            let sender = Sender::unbound().unwrap();
            sender.send_to(datagram, self.socket()).unwrap();
        }

        fn value(&self, series: &str) -> f64 {
            Exposition::parse(&self.metrics.encode().unwrap()).value(series)
        }
    }

    async fn until(done: impl Fn() -> bool) {
        for _ in 0..500 {
            if done() {
                return;
            }
            time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not within 5 s");
    }

    fn add() -> Told {
        Told {
            network: "pods".to_owned(),
            command: "ADD".to_owned(),
            micros: 7_000,
            failed: false,
        }
    }

    #[tokio::test]
    async fn garbage_is_counted_and_what_comes_after_is_heard() {
        let receiver = Receiver::start().await;
        let unknown = Told {
            command: "RM -RF".to_owned(),
            ..add()
        };
        let long = Told {
            network: "x".repeat(2 * MAX_LEN),
            ..add()
        };
        let malformed = [
            Vec::new(),
            b"garbage".to_vec(),
            vec![0xff; 65_536],
            br#"{"version":1,"network":7}"#.to_vec(),
            unknown.encode().unwrap(),
            long.encode().unwrap(),
        ];
        for datagram in &malformed {
            receiver.send(datagram);
        }
        receiver.send(br#"{"version":99,"anything":[]}"#);
        receiver.send(&add().encode().unwrap());
        let heard = r#"beeline_cni_seconds_count{network="pods",command="ADD",result="ok"}"#;
        until(|| receiver.metrics.encode().unwrap().contains(heard)).await;
        assert_eq!(receiver.value(heard), 1.0);
        let ignored = |reason| format!(r#"beeline_cni_ignored_total{{reason="{reason}"}}"#);
        assert_eq!(
            receiver.value(&ignored("malformed")),
            malformed.len() as f64
        );
        assert_eq!(receiver.value(&ignored("version")), 1.0);
        assert!(!receiver.task.is_finished());
    }

    #[tokio::test]
    async fn only_root_can_write_to_the_socket() {
        let receiver = Receiver::start().await;
        let found = fs::symlink_metadata(receiver.socket()).unwrap();
        assert_eq!((found.mode() & 0o777, found.uid()), (0o600, 0));
    }

    #[tokio::test]
    async fn a_socket_that_is_removed_comes_back() {
        let receiver = Receiver::start().await;
        fs::remove_file(receiver.socket()).unwrap();
        until(|| receiver.socket().exists()).await;
        receiver.send(&add().encode().unwrap());
        until(|| {
            receiver
                .metrics
                .encode()
                .unwrap()
                .contains("beeline_cni_seconds_count")
        })
        .await;
    }

    #[tokio::test]
    async fn a_new_agent_takes_the_place_of_an_old_one_and_keeps_it() {
        let directory = tempfile::tempdir_in("/run").unwrap();
        let path = directory.path().join(SOCKET);
        drop(Sender::bind(&path).unwrap());
        let old = Socket::bind(directory.path()).unwrap();
        let new = Socket::bind(directory.path()).unwrap();
        assert!(!old.is_there());
        drop(old);
        assert!(new.is_there());
        drop(new);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_directory_that_others_can_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = receive(directory.path(), Arc::new(Metrics::new())).await;
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("others can write to it"), "{error}");
    }
}
