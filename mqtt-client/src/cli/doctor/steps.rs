//! The steps: name, address, TLS, CONNECT, what the server announces, round trips.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mqtt_client::{Client, Error, Filter, Message, Options, QoS, ServerInfo, Subscription};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::super::args::DoctorArgs;
use super::super::connection::{Destination, Setup};
use super::super::service;
use super::Trouble;
use super::diagnosis::{self, Found};
use super::handshake::{self, Certificate, date};
use super::report::{Mark, Report};

/// Days before which an expiry is no oddity.
const SOON: i64 = 14;
/// Addresses of a name that are tried.
const MOST_ADDRESSES: usize = 8;

/// Goes all the way.
pub(super) async fn all(
    args: &DoctorArgs,
    setup: &Setup,
    report: &mut Report,
) -> Result<(), Trouble> {
    let patience = Duration::from_secs(args.patience.into());
    let mut setup_options = setup.options.clone().connect_timeout(patience);
    let mut place = setup.destination.clone();
    if let Some(name) = &setup.service {
        let servers = service::look_up(name).await;
        let servers = servers
            .map_err(|error| Trouble::new(error.trim_start_matches("Error: ").to_owned()))?;
        let all: Vec<_> = servers
            .iter()
            .map(|server| format!("{}:{}", server.host, server.port))
            .collect();
        report.line(Mark::Fine, "SRV", &format!("{name}: {}", all.join(", ")));
        if let (Some(server), Destination::Host { host, port, .. }) = (servers.first(), &mut place)
        {
            (*host, *port) = (server.host.clone(), server.port);
            setup_options = setup_options.server(&server.host, server.port);
        }
    }
    let shown = place.to_string();
    let mut chain = Vec::new();
    let mut direct = None;
    match &place {
        Destination::Host { host, port, tls } if args.common.proxy.is_none() => {
            let address = reach(report, host, *port, &shown, patience).await?;
            direct = Some(address);
            if let Some(name) = tls {
                let alpn = args.common.tls.tls_alpn.as_deref();
                chain = show_tls(report, address, name, alpn, patience).await;
            }
        }
        Destination::Host { .. } => {
            let text = "name and address are left to the proxy";
            report.line(Mark::Note, "proxy", text);
        }
        Destination::Unix(_) => report.line(Mark::Note, "socket", &shown),
    }
    let started = Instant::now();
    let client = match Client::connect(setup_options).await {
        Ok(client) => client,
        Err(error) => {
            report.line(Mark::Bad, "CONNECT", &error.to_string());
            let found = match (direct, &error) {
                (_, Error::Refused { .. }) | (None, _) => Found::Unknown,
                (Some(address), _) => look_again(setup, &place, address, patience).await,
            };
            return Err(Trouble {
                sentence: diagnosis::refused(&error, &shown, &chain, found),
                error: Some(error),
            });
        }
    };
    let text = format!(
        "MQTT {}, accepted after {}",
        setup.version,
        milliseconds(started.elapsed())
    );
    report.line(Mark::Fine, "CONNECT", &text);
    announce(report, &client.server());
    let measured = round_trips(args, report, &client, patience).await;
    let ended = client.disconnect().await;
    measured?;
    if let Err(error) = ended {
        report.line(Mark::Odd, "DISCONNECT", &error.to_string());
    }
    Ok(())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// Resolves the name and connects to each of its addresses; the first that answers.
async fn reach(
    report: &mut Report,
    host: &str,
    port: u16,
    shown: &str,
    patience: Duration,
) -> Result<SocketAddr, Trouble> {
    let started = Instant::now();
    let found = timeout(patience, lookup_host((host, port))).await;
    let addresses: Vec<_> = match found {
        Ok(Ok(addresses)) => addresses.take(MOST_ADDRESSES).collect(),
        Ok(Err(error)) => {
            report.line(Mark::Bad, "resolve", &format!("{host}: {error}"));
            return Err(Trouble::new(format!(
                "the name {host} is not known: check its spelling, and the name servers of this machine."
            )));
        }
        Err(_) => {
            report.line(Mark::Bad, "resolve", &format!("{host}: no answer"));
            return Err(Trouble::new(format!(
                "the name servers of this machine do not answer when asked for {host}."
            )));
        }
    };
    let list: Vec<_> = addresses
        .iter()
        .map(|address| address.ip().to_string())
        .collect();
    let text = format!(
        "{host}: {} ({})",
        list.join(", "),
        milliseconds(started.elapsed())
    );
    report.line(Mark::Fine, "resolve", &text);

    let (mut reached, mut failures) = (None, Vec::new());
    for address in addresses {
        let started = Instant::now();
        let attempt = timeout(patience, TcpStream::connect(address)).await;
        match attempt.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(_) => {
                let text = format!("{address} ({})", milliseconds(started.elapsed()));
                report.line(Mark::Fine, "TCP", &text);
                reached = reached.or(Some(address));
            }
            Err(error) => failures.push((address, error)),
        }
    }
    // One address of several that does not answer delays clients that try it first.
    let mark = if reached.is_some() {
        Mark::Odd
    } else {
        Mark::Bad
    };
    for (address, error) in &failures {
        let loopback = reached.is_some() && address.ip().is_loopback();
        let mark = if loopback { Mark::Note } else { mark };
        report.line(mark, "TCP", &format!("{address}: {error}"));
    }
    match (reached, failures.first()) {
        (Some(address), _) => Ok(address),
        (None, Some((_, error))) => Err(Trouble::new(diagnosis::unreachable(error, shown))),
        (None, None) => Err(Trouble::new(format!("the name {host} has no address."))),
    }
}

/// Shows the certificates; whether they are trusted is seen when the client connects.
async fn show_tls(
    report: &mut Report,
    address: SocketAddr,
    name: &str,
    alpn: Option<&str>,
    patience: Duration,
) -> Vec<Certificate> {
    let look = async {
        match TcpStream::connect(address).await {
            Ok(stream) => handshake::look(stream, name, alpn).await,
            Err(error) => handshake::Shown {
                error: Some(error),
                ..handshake::Shown::default()
            },
        }
    };
    let Ok(shown) = timeout(patience, look).await else {
        report.line(Mark::Bad, "TLS", "the server does not finish the handshake");
        return Vec::new();
    };
    match (&shown.session, &shown.error) {
        (Some(session), _) => report.line(Mark::Fine, "TLS", session),
        (None, Some(error)) if shown.chain.is_empty() => {
            report.line(Mark::Bad, "TLS", &error.to_string());
        }
        // A server that wants a certificate ends this handshake, which has none.
        (None, Some(error)) => report.line(Mark::Note, "TLS", &error.to_string()),
        (None, None) => {}
    }
    for certificate in &shown.chain {
        let days = certificate.days_left();
        let (mark, expiry) = match days {
            _ if certificate.is_early() => (
                Mark::Bad,
                format!("not valid before {}", date(certificate.not_before)),
            ),
            ..0 => (
                Mark::Bad,
                format!("expired on {}", date(certificate.not_after)),
            ),
            0..SOON => (
                Mark::Odd,
                format!("expires in {days} days, on {}", date(certificate.not_after)),
            ),
            _ => (
                Mark::Fine,
                format!("valid until {}", date(certificate.not_after)),
            ),
        };
        let names = match certificate.names.is_empty() {
            true => String::new(),
            false => format!(" for {}", certificate.names.join(", ")),
        };
        let text = format!(
            "{}{names}, from {}, {expiry}",
            certificate.subject, certificate.issuer
        );
        report.line(mark, "certificate", &text);
    }
    shown.chain
}

/// Finds out what is at the port instead of what was asked for. No user name or password is sent.
async fn look_again(
    setup: &Setup,
    place: &Destination,
    address: SocketAddr,
    patience: Duration,
) -> Found {
    let Destination::Host { host, tls, .. } = place else {
        return Found::Unknown;
    };
    let patience = patience.min(Duration::from_secs(3));
    if tls.is_some() {
        let plain = Options::new(address.ip().to_string(), address.port())
            .version(setup.version)
            .client_id("doctor")
            .connect_timeout(patience);
        match Client::connect(plain).await {
            Ok(client) => {
                let _ = client.disconnect().await;
                return Found::PlainMqtt;
            }
            Err(Error::Refused { .. }) => return Found::PlainMqtt,
            Err(_) => {}
        }
    } else if let Ok(Ok(stream)) = timeout(patience, TcpStream::connect(address)).await
        && let Ok(shown) = timeout(patience, handshake::look(stream, host, None)).await
        && (shown.session.is_some() || !shown.chain.is_empty())
    {
        return Found::Tls;
    }
    let http = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer == *b"HTTP/")
    };
    match timeout(patience, http).await {
        Ok(Ok(true)) => Found::Http,
        _ => Found::Unknown,
    }
}

/// What CONNACK says.
fn announce(report: &mut Report, server: &ServerInfo) {
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    let seconds = |seconds: u32| match seconds {
        u32::MAX => "for ever".to_owned(),
        seconds => format!("{seconds} s"),
    };
    let mut say = |name: &str, text: String| {
        report.line(Mark::Note, "", &format!("{name:<26}  {text}"));
    };
    say("client identifier", server.client_id.clone());
    say("session present", yes(server.session_present).to_owned());
    say("keep alive", format!("{} s", server.keep_alive));
    if !server.version.has_properties() {
        return;
    }
    say("session expiry", seconds(server.session_expiry_interval));
    say("receive maximum", server.receive_maximum.to_string());
    let size = server.maximum_packet_size;
    let size = size.map_or("no limit of its own".to_owned(), |size| {
        format!("{size} bytes")
    });
    say("maximum packet size", size);
    say("topic aliases", server.topic_alias_maximum.to_string());
    say("maximum QoS", (server.maximum_qos as u8).to_string());
    say("retained messages", yes(server.retain_available).to_owned());
    say(
        "wildcard subscriptions",
        yes(server.wildcard_subscription_available).to_owned(),
    );
    say(
        "subscription identifiers",
        yes(server.subscription_identifiers_available).to_owned(),
    );
    say(
        "shared subscriptions",
        yes(server.shared_subscription_available).to_owned(),
    );
    if let Some(text) = &server.response_information {
        say("response information", text.clone());
    }
    if let Some(text) = &server.reason_string {
        say("reason", text.clone());
    }
    for (name, value) in &server.user_properties {
        say("user property", format!("{name}: {value}"));
    }
}

/// Messages to itself, at each QoS that the server has.
async fn round_trips(
    args: &DoctorArgs,
    report: &mut Report,
    client: &Client,
    patience: Duration,
) -> Result<(), Trouble> {
    let server = client.server();
    let topic = match &args.topic {
        Some(topic) => topic.clone(),
        None => {
            use std::hash::BuildHasher;
            let random = std::hash::RandomState::new().hash_one(std::process::id());
            format!("mqtt-client/doctor/{random:016x}")
        }
    };
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let what = format!("QoS {}", qos as u8);
        if qos > server.maximum_qos {
            report.line(Mark::Note, &what, "not taken by this server");
            continue;
        }
        let filter = Filter::new(&topic).map_err(|error| Trouble::new(error.to_string()))?;
        let subscription = match timeout(patience, client.subscribe(filter.qos(qos))).await {
            Ok(Ok(subscription)) => subscription,
            Err(_) => {
                let text = format!("subscribing to {topic} is not answered");
                report.line(Mark::Bad, &what, &text);
                return Err(Trouble::new(
                    "the server takes the connection and does not answer SUBSCRIBE: it is overloaded, or no whole broker.",
                ));
            }
            Ok(Err(error)) => {
                let text = format!("no round trips: subscribing to {topic} fails: {error}");
                report.line(Mark::Odd, &what, &text);
                lost(error)?;
                continue;
            }
        };
        match measure(args, client, subscription, &topic, qos, patience).await {
            Ok(mut times) => {
                times.sort_unstable();
                let median = times.get(times.len() / 2).copied().unwrap_or_default();
                let longest = times.last().copied().unwrap_or_default();
                let text = format!(
                    "{} round trips, median {}, longest {}",
                    times.len(),
                    milliseconds(median),
                    milliseconds(longest)
                );
                report.line(Mark::Fine, &what, &text);
            }
            Err(Missed::Error(error)) => {
                report.line(Mark::Bad, &what, &error.to_string());
                lost(error)?;
                return Err(Trouble::new(format!(
                    "messages at QoS {} do not come through.",
                    qos as u8
                )));
            }
            Err(Missed::Refused(reason)) => {
                let text = format!("no round trips: publishing to {topic} is refused: {reason}");
                report.line(Mark::Odd, &what, &text);
            }
            Err(Missed::Silence) => {
                let text = format!("what was published to {topic} did not come back in time");
                report.line(Mark::Odd, &what, &text);
            }
        }
    }
    Ok(())
}

/// Whether the error is the end of the connection.
fn lost(error: Error) -> Result<(), Trouble> {
    let sentence = match &error {
        Error::Io(_) | Error::ConnectionLost | Error::Closed | Error::Disconnected { .. } => {
            format!("the server ends the connection: {error}.")
        }
        Error::Malformed(_) | Error::Protocol(_) | Error::Unexpected(_) => {
            format!("the server does not keep to the protocol: {error}.")
        }
        Error::TimedOut => "the server does not answer any more.".to_owned(),
        _ => return Ok(()),
    };
    Err(Trouble {
        sentence,
        error: Some(error),
    })
}

/// Why there is nothing to measure.
enum Missed {
    Error(Error),
    /// With a reason code.
    Refused(&'static str),
    Silence,
}

async fn measure(
    args: &DoctorArgs,
    client: &Client,
    mut subscription: Subscription,
    topic: &str,
    qos: QoS,
    patience: Duration,
) -> Result<Vec<Duration>, Missed> {
    let mut times = Vec::new();
    for number in 0..args.count {
        let message = Message::new(topic, format!("round trip {number}"))
            .map_err(|error| Missed::Error(error.into()))?;
        let started = Instant::now();
        let receipt = client
            .publish(message.qos(qos))
            .await
            .map_err(Missed::Error)?;
        let trip = async {
            let reason = receipt.await.map_err(Missed::Error)?;
            if reason.is_error() {
                return Err(Missed::Refused(reason.name()));
            }
            match subscription.recv().await {
                Some(_) => Ok(started.elapsed()),
                None => Err(Missed::Error(Error::ConnectionLost)),
            }
        };
        let time = timeout(patience, trip).await.map_err(|_| Missed::Silence)?;
        times.push(time?);
    }
    Ok(times)
}
