//! Connections that live through a test and ask again and again.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use super::{Cluster, PLAIN_HOST};

/// A connection that asks again and again.
#[derive(Debug)]
struct Client {
    stream: BufReader<TcpStream>,
    /// Which node answered first.
    node: Option<String>,
}

impl Client {
    /// Connects, and asks once.
    fn connect(vip: IpAddr) -> io::Result<Self> {
        let address = SocketAddr::new(vip, 80);
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut client = Self {
            stream: BufReader::new(stream),
            node: None,
        };
        client.ask()?;
        Ok(client)
    }

    /// One request and its answer, which must be of the node that gave the first.
    fn ask(&mut self) -> io::Result<()> {
        let request = format!("GET / HTTP/1.1\r\nhost: {PLAIN_HOST}\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut length, mut node, mut status) = (0, None, String::new());
        self.stream.read_line(&mut status)?;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().map_err(io::Error::other)?;
            } else if let Some(value) = line.strip_prefix("x-forebay: ") {
                let node_of = |part: &str| part.trim().strip_prefix("node=").map(str::to_owned);
                node = value.split([';', ',', ' ']).find_map(node_of);
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        if !status.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(status));
        }
        let node = node.ok_or_else(|| io::Error::other("the answer names no node"))?;
        match &self.node {
            Some(first) if *first != node => {
                Err(io::Error::other(format!("{first} was {node} at last")))
            }
            _ => {
                self.node = Some(node);
                Ok(())
            }
        }
    }
}

/// The clients of a test, in the client's namespace; they connect to the virtual IPs by turns.
#[derive(Debug)]
pub struct Clients {
    vips: &'static [IpAddr],
    all: Vec<Client>,
}

impl Clients {
    /// None so far.
    pub fn of(vips: &'static [IpAddr]) -> Self {
        Self {
            vips,
            all: Vec::new(),
        }
    }

    /// Connects so many more. Says how many each node has of them.
    ///
    /// # Errors
    /// One gets no answer.
    pub fn connect(
        &mut self,
        cluster: &Cluster,
        count: usize,
    ) -> io::Result<BTreeMap<String, usize>> {
        let vips = self.vips.iter().copied().cycle().take(count);
        let connect = move || vips.map(Client::connect).collect();
        let new: io::Result<Vec<_>> = cluster.lab.client.run(connect);
        let new = new?;
        let mut nodes = BTreeMap::new();
        for node in new.iter().filter_map(|client| client.node.clone()) {
            *nodes.entry(node).or_default() += 1;
        }
        self.all.extend(new);
        Ok(nodes)
    }

    /// Every one asks once; says what became of those that got no answer.
    pub fn ask(&mut self) -> Vec<String> {
        let broken = |client: &mut Client| {
            let error = client.ask().err()?;
            let node = client.node.clone().unwrap_or_default();
            Some(format!("of {node}: {error}"))
        };
        self.all.iter_mut().filter_map(broken).collect()
    }

    /// Takes the others' connections, too.
    pub fn join(&mut self, mut others: Self) {
        self.all.append(&mut others.all);
    }

    /// The connections: which node has each, the client's end and the server's.
    pub fn ends(&self) -> Vec<(String, SocketAddr, SocketAddr)> {
        let ends = |client: &Client| {
            let stream = client.stream.get_ref();
            let (from, to) = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
            Some((client.node.clone()?, from, to))
        };
        self.all.iter().filter_map(ends).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
