//! SRV records (RFC 2782): which servers a domain names for MQTT. The system's resolver does not give
//! them, so the name servers of `/etc/resolv.conf` are asked here.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long a name server may take, each time it is asked.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often each is asked.
const ATTEMPTS: usize = 2;
/// Servers that are tried of those the records name.
const MOST_SERVERS: usize = 16;

/// A server that the records name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// The name whose records are looked up.
pub(crate) fn name(host: &str, tls: bool) -> String {
    let service = if tls { "_secure-mqtt" } else { "_mqtt" };
    format!("{service}._tcp.{}", host.trim_end_matches('.'))
}

/// The servers of the name, in the order in which they are to be tried.
pub(crate) async fn look_up(name: &str) -> Result<Vec<Server>, String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    ask_all(&name_servers(&text), name).await
}

async fn ask_all(servers: &[SocketAddr], name: &str) -> Result<Vec<Server>, String> {
    let mut failure = "no name server is known".to_owned();
    for _ in 0..ATTEMPTS {
        for server in servers {
            match timeout(PATIENCE, ask(*server, name)).await {
                Ok(Ok(Answer::Servers(servers))) => return Ok(servers),
                Ok(Ok(Answer::Nothing(why))) => {
                    return Err(format!("Error: No SRV record of {name}: {why}."));
                }
                Ok(Err(error)) => failure = format!("{server}: {error}"),
                Err(_) => failure = format!("{server} does not answer"),
            }
        }
    }
    Err(format!("Error: SRV look-up of {name} failed: {failure}."))
}

/// The name servers of the file, the local host if it has none; at most three, as resolv.conf(5) says.
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let mut servers: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            words.next().filter(|word| *word == "nameserver")?;
            let address: IpAddr = words.next()?.parse().ok()?;
            Some(SocketAddr::new(address, 53))
        })
        .take(3)
        .collect();
    if servers.is_empty() {
        servers.push(SocketAddr::from(([127, 0, 0, 1], 53)));
    }
    servers
}

/// What a name server says for certain.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Servers(Vec<Server>),
    Nothing(&'static str),
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// One question, over UDP and, if the answer is too long for that, over TCP.
async fn ask(server: SocketAddr, name: &str) -> io::Result<Answer> {
    let id = RandomState::new().hash_one(name) as u16;
    let mut query = Packet::new_query(id);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    let question = Name::new(name).map_err(invalid)?;
    query.questions.push(Question::new(
        question,
        QTYPE::TYPE(TYPE::SRV),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    let query = query.build_bytes_vec().map_err(invalid)?;
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(&query).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let Some(Ok(answer)) = buffer.get(..length).map(Packet::parse) else {
            continue;
        };
        if answer.id() != id {
            continue;
        }
        if !answer.has_flags(PacketFlag::TRUNCATION) {
            return read(&answer);
        }
        break;
    }
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(invalid)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&query).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    let answer = Packet::parse(&buffer).map_err(invalid)?;
    if answer.id() != id {
        return Err(invalid("an answer to another question"));
    }
    read(&answer)
}

fn read(answer: &Packet<'_>) -> io::Result<Answer> {
    match answer.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Ok(Answer::Nothing("there is no such name")),
        code => return Err(invalid(format!("it refuses: {code:?}"))),
    }
    let mut records = Vec::new();
    for record in &answer.answers {
        if let RData::SRV(service) = &record.rdata {
            let host = service.target.to_string();
            let host = host.trim_end_matches('.');
            // A lone dot says that there is no such service.
            if !host.is_empty() {
                let server = Server {
                    host: host.to_owned(),
                    port: service.port,
                };
                records.push((service.priority, service.weight, server));
            }
        }
    }
    if records.is_empty() {
        return Ok(Answer::Nothing("the domain names no server"));
    }
    let mut seed = RandomState::new().hash_one(0_u8);
    let servers = in_order(records, |below| {
        // xorshift: enough to spread clients over servers.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    });
    Ok(Answer::Servers(servers))
}

/// By priority, and among equals at random in proportion to the weight.
fn in_order(
    mut records: Vec<(u16, u16, Server)>,
    mut random: impl FnMut(u64) -> u64,
) -> Vec<Server> {
    records.sort_by_key(|(priority, weight, _)| (*priority, *weight));
    let mut servers = Vec::new();
    while let Some((first, ..)) = records.first() {
        let first = *first;
        let count = records
            .iter()
            .take_while(|(priority, ..)| *priority == first)
            .count();
        let weights = || {
            records
                .iter()
                .take(count)
                .map(|(_, weight, _)| u64::from(*weight))
        };
        let mut left = random(weights().sum::<u64>() + 1);
        let chosen = weights()
            .position(|weight| {
                let found = left <= weight;
                left = left.saturating_sub(weight);
                found
            })
            .unwrap_or(0);
        let (_, _, server) = records.remove(chosen);
        servers.push(server);
    }
    servers.truncate(MOST_SERVERS);
    servers
}

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::SRV;

    use super::*;

    fn server(host: &str) -> Server {
        Server {
            host: host.to_owned(),
            port: 1883,
        }
    }

    #[test]
    fn servers_are_tried_by_priority_and_weight() {
        let records = || {
            vec![
                (20, 0, server("last")),
                (10, 30, server("heavy")),
                (10, 10, server("light")),
            ]
        };
        let hosts = |pick: u64| {
            let servers = in_order(records(), |below| pick.min(below - 1));
            servers.into_iter().map(|one| one.host).collect::<Vec<_>>()
        };
        assert_eq!(hosts(5), ["light", "heavy", "last"]);
        assert_eq!(hosts(11), ["heavy", "light", "last"]);
    }

    #[test]
    fn name_servers_come_from_the_file() {
        let servers = name_servers("# x\nnameserver 192.0.2.1\nsearch a\nnameserver ::1\n");
        assert_eq!(
            servers,
            ["192.0.2.1:53", "[::1]:53"].map(|text| text.parse().unwrap())
        );
        assert_eq!(name_servers(""), ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(name("example.org.", true), "_secure-mqtt._tcp.example.org");
    }

    /// A name server that answers every question with these records.
    async fn answering(code: RCODE, records: Vec<(u16, &'static str)>) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = vec![0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let query = Packet::parse(&buffer[..length]).unwrap();
                let mut answer = query.clone().into_reply();
                *answer.rcode_mut() = code;
                for (priority, target) in &records {
                    let data = RData::SRV(SRV {
                        priority: *priority,
                        weight: 0,
                        port: 1884,
                        target: Name::new(target).unwrap(),
                    });
                    let name = query.questions[0].qname.clone();
                    answer
                        .answers
                        .push(ResourceRecord::new(name, CLASS::IN, 60, data));
                }
                // What is no answer is passed over.
                socket.send_to(b"x", from).await.unwrap();
                let bytes = answer.build_bytes_vec().unwrap();
                socket.send_to(&bytes, from).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn a_name_server_is_asked() {
        let records = vec![(2, "second.example"), (1, "first.example")];
        let address = answering(RCODE::NoError, records).await;
        let servers = ask_all(&[address], "_mqtt._tcp.example").await.unwrap();
        let found: Vec<_> = servers
            .iter()
            .map(|server| (server.host.as_str(), server.port))
            .collect();
        assert_eq!(found, [("first.example", 1884), ("second.example", 1884)]);
    }

    #[tokio::test]
    async fn what_is_not_there_is_told() {
        let address = answering(RCODE::NameError, Vec::new()).await;
        let error = ask_all(&[address], "_mqtt._tcp.x").await.unwrap_err();
        assert!(error.contains("there is no such name"), "{error}");
        let address = answering(RCODE::ServerFailure, Vec::new()).await;
        let error = ask_all(&[address], "_mqtt._tcp.x").await.unwrap_err();
        assert!(error.contains("refuses"), "{error}");
    }
}
