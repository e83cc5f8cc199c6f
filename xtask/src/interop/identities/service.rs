//! A service on the loopback interface that is asked by HTTP who may come in, and mosquitto's clients that it knows or not.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    UNAVAILABLE, UNKNOWN, denied, let_in, refused,
    stage::{Door, Stage},
    with,
};
use crate::interop::transports::{
    mosquitto::{VERSIONS, port, publish},
    stage::{PASSWORD, PATIENCE, USER},
};

/// Longest body that is read.
const LONGEST: usize = 64 * 1_024;

/// It knows one user, and lets nobody use the topics below `open/closed`.
pub(super) struct Service {
    pub(super) address: SocketAddr,
    is_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let is_ended = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&is_ended);
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                // Who asks badly gets no answer, which the broker takes for a failure.
                _ = answer(stream);
            }
        });
        Ok(Self {
            address,
            is_ended,
            thread: Some(thread),
        })
    }
}

/// From now on nobody listens there.
impl Drop for Service {
    fn drop(&mut self) {
        self.is_ended.store(true, Ordering::Release);
        _ = TcpStream::connect(self.address);
        _ = self.thread.take().map(JoinHandle::join);
    }
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().context("content-length")?;
        }
    }
    let mut body = vec![0; LONGEST.min(length)];
    reader.read_exact(&mut body)?;
    let asked: Value = serde_json::from_slice(&body)?;
    let is_allowed = if request.starts_with("POST /connect ") {
        asked["user"] == USER && asked["password"] == PASSWORD
    } else {
        let topic = asked["topic"].as_str().context("no topic")?;
        !topic.starts_with("open/closed")
    };
    let (status, body) = if is_allowed {
        ("200 OK", "{\"result\": \"allow\"}")
    } else {
        ("403 Forbidden", "")
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all((head + body).as_bytes())?;
    Ok(())
}

pub(super) fn check(stage: &mut Stage) -> Result<()> {
    let way = port(stage.address(Door::Service)?);
    let anna = with(&way, USER, PASSWORD);
    let_in(&anna, USER)?;
    for version in VERSIONS {
        publish(&anna, version, "open/door", "x", &[])?;
        denied(&anna, version, "open/closed")?;
    }
    refused(&with(&way, USER, "wrong"), UNKNOWN, "a wrong password")?;
    refused(&with(&way, "nobody", PASSWORD), UNKNOWN, "an unknown user")?;
    refused(&way, UNKNOWN, "no user")?;
    drop(stage.service.take());
    refused(&anna, UNAVAILABLE, "a service that is gone")
}
