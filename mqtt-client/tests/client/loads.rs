//! Loads of `bench` over each transport, to a broker: every message is accounted for.

use std::fs;
use std::sync::Arc;

use mqtt_broker::{Broker, Config, Tls, TlsOptions, Transport, WebSocketOptions};

use crate::program::{start, text};
use crate::transports::{Pki, listen};

/// A broker behind what the paths say, on a port of its own.
async fn serve(transport: Transport) -> String {
    let (listener, port) = listen().await;
    let broker = Broker::new(Config::default());
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            broker.serve_through(stream, peer.into(), Arc::default(), transport.clone());
        }
    });
    port.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_and_websocket() {
    let pki = Pki::new();
    let folder = tempfile::tempdir().unwrap();
    let written = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let (certificate, key) = pki.issue("localhost");
    let root = written("root.crt", &pki.root());
    let options = TlsOptions::new(
        written("server.crt", &certificate),
        written("server.key", &key),
    );
    let mut websocket = WebSocketOptions::default();
    websocket.path = "/elsewhere".to_owned();
    let mut tls = Transport::default();
    tls.tls = Some(Tls::load(&options).unwrap());
    let mut ws = Transport::default();
    ws.websocket = Some(Arc::new(websocket));
    let mut wss = tls.clone();
    wss.websocket.clone_from(&ws.websocket);
    let root = ["--cafile", root.to_str().unwrap()];
    let path = ["--ws-path", "elsewhere"];
    for (name, transport, how) in [
        ("tls", tls, root.to_vec()),
        ("ws", ws, path.to_vec()),
        ("wss", wss, [root, path].concat()),
    ] {
        let port = serve(transport).await;
        let place = ["bench", "p2p", "-h", "localhost", "-p", &port, "--json"];
        // Large ones: sockets take less than they are given.
        let load = [
            "--count",
            "100",
            "--payload",
            "100000",
            "-q",
            "1",
            "-n",
            "4",
        ];
        let time = ["--warmup", "0", "--seconds", "3600", "--lasting"];
        let arguments = [&place[..], &load, &time, &how].concat();
        let output = start(&arguments, "").await.unwrap();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{stdout} {stderr}");
        let transport = format!("\"transport\":\"{name}\"");
        for part in ["\"received\":400,", "\"lost\":0,", &transport] {
            assert!(stdout.contains(part), "{stdout}");
        }
    }
}
