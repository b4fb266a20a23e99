// SPDX-License-Identifier: MIT OR Apache-2.0

//! Statistics on a Unix socket, as HTTP: `curl --unix-socket SOCKET http://backend/metrics`.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Error;
use crate::report::{DiskReport, json, prometheus, table};

/// How long a reader may take to ask, and to take the answer.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long somebody who still listens has to let go of the socket.
const HELD_TIME: Duration = Duration::from_secs(2);

/// How long to wait before it is tried again, until then.
const HELD_PAUSE: Duration = Duration::from_millis(20);

/// A form of the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line for each queue, for people.
    Table,
    /// An array of [`DiskReport`].
    Json,
    /// The text format of Prometheus.
    Prometheus,
}

impl Format {
    fn path(self) -> &'static str {
        match self {
            Self::Table => "/table",
            Self::Json => "/json",
            Self::Prometheus => "/metrics",
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Table => "text/plain; charset=utf-8",
            Self::Json => "application/json",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    fn render(self, disks: &[DiskReport]) -> String {
        match self {
            Self::Table => table(disks),
            Self::Json => json(disks),
            Self::Prometheus => prometheus(disks),
        }
    }
}

/// Asks the backend that serves `socket` for its statistics.
///
/// # Errors
///
/// When nobody serves it, or what answers is no backend. Names the socket.
pub fn fetch(socket: &Path, format: Format) -> Result<String, Error> {
    let ask = || -> io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        write!(stream, "GET {} HTTP/1.0\r\n\r\n", format.path())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.0 200") => Ok(body.to_owned()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not the answer of a backend")),
        }
    };
    let operation = format!("read statistics at {}", socket.display());
    ask().map_err(|source| Error::Io { operation, source })
}

/// The listening socket. Its file goes when it is dropped.
#[derive(Debug)]
pub(crate) struct StatsSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl StatsSocket {
    /// Listens at `path`, in place of a socket there that nobody serves, or soon nobody will.
    pub(crate) fn bind(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Io {
            operation: format!("serve statistics at {}", path.display()),
            source,
        };
        let began = Instant::now();
        loop {
            match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(failed)?;
                    break;
                }
                // The io_uring of a backend that was killed has its socket for a moment longer.
                Ok(_) if began.elapsed() < HELD_TIME => std::thread::sleep(HELD_PAUSE),
                _ => break,
            }
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers all who wait.
    pub(crate) fn serve(&self, disks: impl Fn() -> Vec<DiskReport>) {
        while let Ok((stream, _)) = self.listener.accept() {
            if let Err(error) = answer(stream, &disks) {
                log::debug!("statistics: {error}");
            }
        }
    }
}

impl AsFd for StatsSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for StatsSocket {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Answers one request.
fn answer(mut stream: UnixStream, disks: impl Fn() -> Vec<DiskReport>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    // The control thread waits for the reader: one that comes byte by byte gets no more time than another.
    let end = Instant::now() + PATIENCE;
    while !request.windows(4).any(|end| end == b"\r\n\r\n")
        && request.len() < 8192
        && Instant::now() < end
    {
        match stream.read(&mut buffer)? {
            0 => break,
            len => request.extend_from_slice(buffer.get(..len).unwrap_or_default()),
        }
    }
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, path) = (words.next(), words.next().unwrap_or_default());
    let formats = [Format::Table, Format::Json, Format::Prometheus];
    let format = formats.into_iter().find(|format| format.path() == path);
    match format.filter(|_| method == Some("GET")) {
        Some(format) => {
            respond(&mut stream, "200 OK", format.content_type(), &format.render(&disks()))
        }
        None => {
            let known = "GET /metrics, /json or /table\n";
            respond(&mut stream, "404 Not Found", "text/plain", known)
        }
    }
}

fn respond(
    stream: &mut UnixStream,
    status: &str,
    content_type: &str,
    body: &str,
) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.0 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve_one(socket: &StatsSocket) {
        socket.listener.set_nonblocking(false).unwrap();
        let (stream, _) = socket.listener.accept().unwrap();
        answer(stream, Vec::new).unwrap();
    }

    #[test]
    fn each_format_is_served_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats");
        let socket = StatsSocket::bind(&path).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..4).for_each(|_| serve_one(&socket)));
            assert_eq!(fetch(&path, Format::Json).unwrap(), "[]\n");
            assert!(fetch(&path, Format::Table).unwrap().contains("requests/batch"));
            assert!(
                fetch(&path, Format::Prometheus)
                    .unwrap()
                    .contains("# TYPE causeway_block_reads_total counter")
            );
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.write_all(b"PUT /metrics HTTP/1.1\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.0 404"), "{answer}");
        });
    }

    #[test]
    fn a_reader_that_asks_byte_by_byte_does_not_hold_up_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats");
        let socket = StatsSocket::bind(&path).unwrap();
        let mut slow = UnixStream::connect(&path).unwrap();
        std::thread::scope(|scope| {
            let served = scope.spawn(|| serve_one(&socket));
            // As many bytes as it takes until nobody listens any more.
            let bytes = (0..400).take_while(|_| {
                std::thread::sleep(PATIENCE / 20);
                slow.write_all(b"x").is_ok()
            });
            let count = bytes.count();
            assert!(count < 400, "{count} bytes were waited for");
            served.join().unwrap();
        });
    }

    #[test]
    fn a_socket_that_is_soon_let_go_is_awaited() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats");
        let killed = UnixListener::bind(&path).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                drop(killed);
            });
            let socket = StatsSocket::bind(&path).unwrap();
            scope.spawn(move || serve_one(&socket));
            assert_eq!(fetch(&path, Format::Json).unwrap(), "[]\n");
        });
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats");
        drop(UnixListener::bind(&path).unwrap());
        let first = StatsSocket::bind(&path).unwrap();
        let error = StatsSocket::bind(&path).unwrap_err().to_string();
        assert!(error.contains("stats: Address already in use"), "{error}");
        drop(first);
        assert!(!path.exists());
        let error = fetch(&path, Format::Json).unwrap_err().to_string();
        assert!(error.contains("stats: No such file"), "{error}");
    }
}
