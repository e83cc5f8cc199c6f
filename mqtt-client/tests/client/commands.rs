//! What the options of the program do: transports, requests, options files, signals.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Output};

use mqtt_broker::{Broker, Config};
use mqtt_client::{Client, Filter, Options, ProtocolVersion, QoS, ReasonCode};
use mqtt_codec::{Packet, SubAck};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{TcpStream, UnixListener};

use crate::peer::{Peer, ack};
use crate::program::{answer, broker, finish, spawn, start, start_against, text};
use crate::transports::{Pki, accept_websocket, listen, serve, socks5};

const V5: ProtocolVersion = ProtocolVersion::V5;
const V311: ProtocolVersion = ProtocolVersion::V3_1_1;

/// Publishes `hello` at QoS 1 in MQTT 5 with these arguments besides.
async fn publish(arguments: &[&str]) -> Output {
    let base = ["pub", "-V", "5", "-q", "1", "-m", "hello"];
    start(&[&base, arguments].concat(), "").await.unwrap()
}

#[track_caller]
fn assert_done(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
}

fn written(folder: &tempfile::TempDir, name: &str, content: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn tls_with_files() {
    let pki = Pki::new();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = pki.issue("sensor");
    let root = written(&folder, "root.crt", &pki.root());
    written(&folder, "README", "no certificate");
    let certificate = written(&folder, "client.crt", &certificate);
    let key = written(&folder, "client.key", &key);
    let keys = folder.path().join("keys").display().to_string();
    let roots = folder.path().to_str().unwrap();
    let (listener, port) = listen().await;
    let acceptor = pki.acceptor(true);
    let server = async {
        for _ in 0..3 {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"mqtt"[..]));
            serve(stream).await;
        }
    };
    let port = port.to_string();
    let url = format!("mqtts://127.0.0.1:{port}/t");
    let identity = ["--cert", &certificate, "--key", &key, "--tls-alpn", "mqtt"];
    let client = async {
        let place = ["-h", "localhost", "-p", &port, "-t", "t"];
        let arguments = [&place[..], &identity, &["--cafile", &root]].concat();
        assert_done(&publish(&arguments).await);
        let more = ["--capath", roots, "--tls-version", "tlsv1.3"];
        let arguments = [&place[..], &identity, &more, &["--tls-keylog", &keys]].concat();
        assert_done(&publish(&arguments).await);
        // The certificate is not one of 127.0.0.1.
        let more = ["-L", &url, "--cafile", &root, "--insecure"];
        assert_done(&publish(&[&identity[..], &more].concat()).await);
    };
    tokio::join!(server, client);
    let keys = fs::read_to_string(keys).unwrap();
    assert!(keys.contains("CLIENT_TRAFFIC_SECRET_0 "), "{keys}");
}

#[tokio::test]
async fn a_certificate_of_another_name_is_refused() {
    let pki = Pki::new();
    let folder = tempfile::tempdir().unwrap();
    let root = written(&folder, "root.crt", &pki.root());
    let (listener, port) = listen().await;
    let acceptor = pki.acceptor(false);
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(acceptor.accept(stream).await.is_err());
    };
    let url = format!("mqtts://127.0.0.1:{port}/t");
    let arguments = ["-L", &url, "--cafile", &root];
    let (output, ()) = tokio::join!(publish(&arguments), server);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("Error: TLS: "), "{stderr}");
}

#[tokio::test]
async fn mistakes_of_tls_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let empty = written(&folder, "empty", "");
    let roots = folder.path().to_str().unwrap();
    for (arguments, expected) in [
        (&["--cafile", "/nonexistent"][..], "Unable to open --cafile"),
        (&["--cafile", &empty], "there is none in the PEM text"),
        (&["--capath", roots], "holds a certificate"),
        (&["--capath", "/nonexistent"], "Unable to open --capath"),
        (&["--insecure"], "are for TLS"),
        (&["--cert", &empty], "--key"),
        (&["--cert", &empty, "--key", &empty], "are for TLS"),
        (
            &["--tls-use-os-certs", "--tls-version", "tlsv1.1"],
            "no TLS older than 1.2",
        ),
        (&["--ciphers", "x"], "--ciphers is not available: rustls"),
        (&["--tls-engine", "x"], "OpenSSL"),
        (&["-L", "mqtts://h/t", "--no-tls"], "--no-tls"),
        (&["--proxy", "ftp://x"], "Invalid --proxy"),
        (&["--unix", "/x", "-S"], "SRV"),
    ] {
        let output = publish(&[&["-t", "a"], arguments].concat()).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let stderr = text(&output.stderr);
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn websocket_unix_socket_and_proxy() {
    let (listener, port) = listen().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let local = UnixListener::bind(&path).unwrap();
    let pki = Pki::new();
    let root = written(&folder, "root.crt", &pki.root());
    let acceptor = pki.acceptor(false);
    let (target, target_port) = listen().await;
    let server = async {
        for path in ["/mqtt", "/mqtt", "/elsewhere"] {
            let (stream, _) = listener.accept().await.unwrap();
            accept_websocket(stream, path, true).await;
        }
        let (stream, _) = listener.accept().await.unwrap();
        accept_websocket(acceptor.accept(stream).await.unwrap(), "/mqtt", true).await;
        for _ in 0..2 {
            let (stream, _) = local.accept().await.unwrap();
            serve(stream).await;
        }
        let (stream, _) = listener.accept().await.unwrap();
        let behind = async { serve(target.accept().await.unwrap().0).await };
        tokio::join!(socks5(stream, target_port, 0), behind);
    };
    let port = port.to_string();
    let client = async {
        let url = format!("ws://127.0.0.1:{port}/t");
        assert_done(&publish(&["-L", &url]).await);
        let place = ["-h", "127.0.0.1", "-p", &port, "-t", "t"];
        assert_done(&publish(&[&place[..], &["--ws"]].concat()).await);
        let more = ["--ws-path", "/elsewhere"];
        assert_done(&publish(&[&place[..], &more].concat()).await);
        let url = format!("wss://localhost:{port}/t");
        assert_done(&publish(&["-L", &url, "--cafile", &root]).await);
        let path = path.to_str().unwrap();
        assert_done(&publish(&["--unix", path, "-t", "t"]).await);
        let url = format!("unix:{path}");
        assert_done(&publish(&["-L", &url, "-t", "t"]).await);
        let proxy = format!("socks5h://me!:pw!@127.0.0.1:{port}");
        let arguments = ["--proxy", &proxy, "-h", "broker.example", "-t", "t"];
        assert_done(&publish(&arguments).await);
    };
    tokio::join!(server, client);
}

async fn expect_subscribe(peer: &mut Peer<TcpStream>, filter: &str, reason: ReasonCode) {
    let id = peer
        .expect(|packet| match packet {
            Packet::Subscribe(subscribe) => {
                assert_eq!(subscribe.filters[0].filter.as_str(), filter);
                subscribe.packet_id
            }
            packet => panic!("{packet:?}"),
        })
        .await;
    peer.send(Packet::SubAck(SubAck::new(id, vec![reason])))
        .await;
}

#[tokio::test]
async fn rr_subscribes_asks_and_prints_the_answer() {
    for version in [V311, V5] {
        let arguments = [
            "rr", "-t", "ask", "-e", "t", "-m", "question", "-q", "1", "-v", "-R",
        ];
        let (program, mut peer) = start_against(version, ReasonCode::SUCCESS, &arguments, "").await;
        expect_subscribe(&mut peer, "t", ReasonCode::GRANTED_QOS_1).await;
        let id = peer
            .expect(|packet| match packet {
                Packet::Publish(publish) => {
                    assert_eq!(publish.topic.unwrap().as_str(), "ask");
                    let response = publish.properties.response_topic;
                    let expected = version.has_properties().then_some("t");
                    assert_eq!(response.map(|topic| topic.as_str()), expected);
                    publish.packet_id
                }
                packet => panic!("{packet:?}"),
            })
            .await;
        peer.send(Packet::PubAck(ack(id.unwrap().get()))).await;
        peer.publish(QoS::AtLeastOnce, 1, "answer").await;
        peer.publish(QoS::AtLeastOnce, 2, "another").await;
        peer.expect_packet(Packet::PubAck(ack(1))).await;
        peer.expect_end(ReasonCode::SUCCESS).await;
        drop(peer);
        let output = program.await.unwrap();
        assert_done(&output);
        assert_eq!(text(&output.stdout), "t answer\n");
    }
}

#[tokio::test]
async fn rr_without_an_answer() {
    let (program, mut peer) = start_against(
        V5,
        ReasonCode::SUCCESS,
        &["rr", "-t", "a", "-e", "t", "-n"],
        "",
    )
    .await;
    expect_subscribe(&mut peer, "t", ReasonCode::NOT_AUTHORIZED).await;
    peer.expect_end(ReasonCode::SUCCESS).await;
    drop(peer);
    let output = program.await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("Not authorized"), "{stderr}");

    let arguments = ["rr", "-t", "a", "-e", "t", "-n", "-W", "1"];
    let (program, mut peer) = start_against(V5, ReasonCode::SUCCESS, &arguments, "").await;
    expect_subscribe(&mut peer, "t", ReasonCode::SUCCESS).await;
    peer.expect_publish("").await;
    peer.expect_end(ReasonCode::DISCONNECT_WITH_WILL).await;
    drop(peer);
    let output = program.await.unwrap();
    assert_eq!(output.status.code(), Some(27));
    assert_eq!(text(&output.stderr), "Timed out\n");
}

#[tokio::test]
async fn options_come_from_the_files_of_both_names() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mqtt-client"));
        command.args(arguments).env_clear();
        command.env("XDG_CONFIG_HOME", folder.path());
        let output = command.output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    // Which file was read shows in its mistake.
    written(&folder, "mosquitto_rr", "--mosquittos\n");
    let (status, stderr) = run(&["rr"]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("--mosquittos"), "{stderr}");
    fs::create_dir(folder.path().join("mqtt-client")).unwrap();
    written(&folder, "mqtt-client/rr", "# a comment\n--ours\n");
    let (_, stderr) = run(&["rr"]);
    assert!(stderr.contains("--ours"), "{stderr}");
    let given = written(&folder, "given", "--given x\n");
    let (_, stderr) = run(&["rr", "-o", &given]);
    assert!(stderr.contains("--given"), "{stderr}");
    assert!(Path::new(&given).exists());
}

fn interrupt(child: &Child) {
    let process = Pid::from_child(child);
    kill_process(process, Signal::INT).unwrap();
}

/// Starts the program and accepts it.
async fn spawn_against(arguments: &[&str]) -> (Child, Peer<TcpStream>) {
    let (listener, port) = listen().await;
    let port = port.to_string();
    let place = ["-h", "127.0.0.1", "-p", &port, "-V", "5"];
    let child = spawn(&[arguments, &place].concat());
    let peer = answer(&listener, V5, ReasonCode::SUCCESS).await;
    (child, peer)
}

#[tokio::test]
async fn an_interrupted_sub_says_goodbye() {
    let (child, mut peer) = spawn_against(&["sub", "-t", "t"]).await;
    expect_subscribe(&mut peer, "t", ReasonCode::SUCCESS).await;
    interrupt(&child);
    peer.expect_end(ReasonCode::DISCONNECT_WITH_WILL).await;
    drop(peer);
    assert_done(&finish(child, "").await.unwrap());
}

#[tokio::test]
async fn an_interrupted_pub_or_rr_says_goodbye_and_that_work_is_left() {
    let (mut child, mut peer) = spawn_against(&["pub", "-t", "t", "-l"]).await;
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"first\n").unwrap();
    peer.expect_publish("first").await;
    interrupt(&child);
    peer.expect_end(ReasonCode::SUCCESS).await;
    drop(peer);
    child.stdin = Some(input);
    let output = finish(child, "").await.unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(text(&output.stderr), "Interrupted\n");

    let (child, mut peer) = spawn_against(&["rr", "-t", "a", "-e", "t", "-m", "x"]).await;
    expect_subscribe(&mut peer, "t", ReasonCode::SUCCESS).await;
    peer.expect_publish("x").await;
    interrupt(&child);
    peer.expect_end(ReasonCode::DISCONNECT_WITH_WILL).await;
    drop(peer);
    let output = finish(child, "").await.unwrap();
    assert_eq!(output.status.code(), Some(130));
}

/// The time of `-W` goes on while the server has not answered.
#[tokio::test]
async fn a_server_that_says_nothing_is_left_in_time() {
    let (listener, port) = listen().await;
    let port = port.to_string();
    for arguments in [
        &["sub", "-t", "t"][..],
        &["rr", "-t", "t", "-e", "e", "-m", "x"],
    ] {
        let place = ["-h", "127.0.0.1", "-p", &port, "-W", "1"];
        let child = spawn(&[arguments, &place].concat());
        let (silent, _) = listener.accept().await.unwrap();
        let output = finish(child, "").await.unwrap();
        assert_eq!(output.status.code(), Some(27), "{arguments:?}");
        assert_eq!(text(&output.stderr), "Timed out\n");
        drop(silent);
    }
}

/// Host, port and topic that stand behind a URL, or behind one in a file of options, go before those in it.
#[tokio::test]
async fn what_stands_behind_a_url_counts() {
    let (listener, port) = listen().await;
    let port = port.to_string();
    let arguments = ["pub", "-L", "mqtt://nowhere.invalid:1/other", "-V", "5"];
    let more = ["-m", "x", "-h", "127.0.0.1", "-p", &port, "-t", "t"];
    let child = spawn(&[&arguments[..], &more].concat());
    let mut peer = answer(&listener, V5, ReasonCode::SUCCESS).await;
    peer.expect(|packet| match packet {
        Packet::Publish(publish) => assert_eq!(publish.topic.unwrap().as_str(), "t"),
        packet => panic!("{packet:?}"),
    })
    .await;
    peer.expect_end(ReasonCode::SUCCESS).await;
    drop(peer);
    assert_done(&finish(child, "").await.unwrap());
}

/// Interrupts a load; its exit status is that of the signal, and it prints figures, or that there are none.
async fn end_load(child: Child) -> (String, String) {
    interrupt(&child);
    let output = finish(child, "").await.unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(130), "{stdout} {stderr}");
    (stdout, stderr)
}

/// Loads that open connections, when a signal comes amid that: what is open by then is told, or that nothing is.
#[tokio::test]
async fn an_interrupted_load_of_connections_tells_what_is_open() {
    for load in ["connect", "idle"] {
        for open in [0, 3] {
            let (listener, port) = listen().await;
            let port = port.to_string();
            let arguments = [
                "bench",
                load,
                "--connections",
                "10",
                "--concurrency",
                "1",
                "--json",
            ];
            let place = ["-h", "127.0.0.1", "-p", &port, "-V", "5"];
            let child = spawn(&[&arguments[..], &place].concat());
            let mut peers = Vec::new();
            for _ in 0..open {
                let mut peer = answer(&listener, V5, ReasonCode::SUCCESS).await;
                if load == "idle" {
                    let id = peer
                        .expect(|packet| match packet {
                            Packet::Subscribe(subscribe) => subscribe.packet_id,
                            packet => panic!("{packet:?}"),
                        })
                        .await;
                    let answer = SubAck::new(id, vec![ReasonCode::SUCCESS]);
                    peer.send(Packet::SubAck(answer)).await;
                }
                peers.push(peer);
            }
            // One at a time: those before it are open when the next one comes.
            let (_silent, _) = listener.accept().await.unwrap();
            let (stdout, stderr) = end_load(child).await;
            if open == 0 {
                assert_eq!(stderr, "Interrupted: nothing was measured yet\n");
                assert_eq!(stdout, "");
                continue;
            }
            assert_eq!(stderr, "Interrupted\n", "{stdout}");
            for part in ["\"connected\":3,", "\"failed\":0,", "\"interrupted\":true"] {
                assert!(stdout.contains(part), "{stdout}");
            }
        }
    }
}

/// Loads that do not send for a time, when a signal comes amid them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_load_of_a_number_tells_what_is_done() {
    for (load, more, told) in [
        (
            "retained",
            &["--retained", "1000000"][..],
            "\"stores_per_s\"",
        ),
        (
            "churn",
            &["--seconds", "3600", "--rate", "500"],
            "\"clients_came\"",
        ),
        (
            "idle",
            &[
                "--connections",
                "20",
                "--concurrency",
                "1",
                "--settle",
                "3600",
            ],
            "\"connects_per_s\"",
        ),
    ] {
        let (listener, port) = listen().await;
        let broker = Broker::new(Config::default());
        let (accepted, mut connections) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn({
            let broker = broker.clone();
            async move {
                while let Ok((stream, peer)) = listener.accept().await {
                    broker.serve(stream, peer);
                    // Who counted enough of them has gone.
                    let _ = accepted.send(());
                }
            }
        });
        let watcher = Client::connect(Options::new("127.0.0.1", port))
            .await
            .unwrap();
        let mut seen = watcher.subscribe(Filter::new("#").unwrap()).await.unwrap();
        let port = port.to_string();
        let arguments = [
            "bench",
            load,
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-q",
            "1",
            "--json",
        ];
        let child = spawn(&[&arguments[..], more].concat());
        match load {
            // More than a window of them: some are acknowledged.
            "retained" => {
                for _ in 0..100 {
                    seen.recv().await.unwrap();
                }
            }
            _ => {
                for _ in 0..20 {
                    connections.recv().await.unwrap();
                }
            }
        }
        let (stdout, stderr) = end_load(child).await;
        assert_eq!(stderr, "Interrupted\n", "{load}: {stdout}");
        assert!(stdout.contains(told), "{load}: {stdout}");
        assert!(stdout.contains("\"interrupted\":true"), "{load}: {stdout}");
    }
}

/// A load that is ended early prints what it has measured, all of it accounted for, without a colour in a pipe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_bench_prints_what_it_measured() {
    let port = broker().await;
    let watcher = Client::connect(Options::new("127.0.0.1", port))
        .await
        .unwrap();
    let mut seen = watcher.subscribe(Filter::new("#").unwrap()).await.unwrap();
    let port = port.to_string();
    let load = ["bench", "p2p", "-n", "1", "--rate", "1000", "-q", "1"];
    let rest = ["-h", "127.0.0.1", "-p", &port, "--seconds", "3600"];
    let child = spawn(&[&load[..], &rest, &["--warmup", "0", "--json"]].concat());
    // Some messages have flowed.
    for _ in 0..10 {
        seen.recv().await.unwrap();
    }
    interrupt(&child);
    let output = finish(child, "").await.unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(130), "{stdout} {stderr}");
    assert_eq!(stderr, "Interrupted\n");
    assert!(stdout.contains("\"lost\""), "{stdout}");
    assert!(stdout.contains("\"messages_per_s\""), "{stdout}");
    assert!(!stdout.contains('\x1b'), "{stdout}");
}

#[tokio::test]
async fn completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish"] {
        let output = start(&["completions", shell], "").await.unwrap();
        assert_done(&output);
        let script = text(&output.stdout);
        assert!(script.contains("retain-handling"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("pages");
    let output = start(&["man", pages.to_str().unwrap()], "").await.unwrap();
    assert_done(&output);
    for (page, option) in [
        ("mqtt-client.1", "doctor"),
        ("mqtt-client-sub.1", "filter\\-out"),
        ("mqtt-client-rr.1", "latency"),
    ] {
        let text = fs::read_to_string(pages.join(page)).unwrap();
        assert!(text.contains(option), "{page}");
    }
}
