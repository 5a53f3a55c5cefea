//! nginx: the web node behind the proxy, and the reference that sequences of choices are compared with.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::child::Child;
use crate::cluster::Server;
use crate::{Connection, eventually, peers, ports};

/// Size of `/big.bin`.
pub const BIG_BYTES: usize = 10 << 20;

/// A web node with a static site: `/name` and every unknown path say its name.
pub struct Nginx {
    name: String,
    address: SocketAddr,
    directory: TempDir,
    child: Child,
}

/// Starts a web node.
pub fn nginx(name: &str) -> Nginx {
    Nginx::start_at(name, ports::free())
}

impl Nginx {
    /// Starts (again) at an address of one's choice.
    pub fn start_at(name: &str, address: SocketAddr) -> Self {
        let directory = TempDir::new().unwrap();
        write_site(&directory);
        Self::run(name, address, directory, |path| site(name, address, path))
    }

    /// nginx itself as a load balancer: the lines of an `upstream` block, in front of the same servers.
    pub fn balancer(upstream: &str) -> Self {
        let address = ports::free();
        let directory = TempDir::new().unwrap();
        Self::run("nginx-balancer", address, directory, |_| {
            format!(
                "upstream web {{ {upstream} }}\n\
                 server {{ listen {address}; set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;\n\
                 location / {{ proxy_pass http://web; proxy_buffering off; proxy_set_header Host $host; }} }}\n"
            )
        })
    }

    /// nginx with these blocks of its `http` section; `address` is one that it listens on.
    pub fn with(name: &str, address: SocketAddr, blocks: &str) -> Self {
        let directory = TempDir::new().unwrap();
        write_site(&directory);
        Self::run(name, address, directory, |path| {
            blocks.replace("@site", &format!("{path}/site"))
        })
    }

    fn run(
        name: &str,
        address: SocketAddr,
        directory: TempDir,
        servers: impl FnOnce(&str) -> String,
    ) -> Self {
        let path = directory.path().to_str().unwrap().to_owned();
        let configuration = format!("{}{}}}\n", preamble(&path), servers(&path));
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new(peers::need("nginx"));
        command.arg("-p").arg(directory.path()).arg("-c").arg(&file);
        let child = Child::start(name, &command, &directory.path().join("output.log"));
        let server = Self {
            name: name.to_owned(),
            address,
            directory,
            child,
        };
        eventually(
            &format!("nginx {name} listens"),
            Duration::from_secs(20),
            || Connection::open(address).map(drop),
        );
        server
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// `/health` answers 503 from now on.
    pub fn fall_sick(&self) {
        std::fs::write(self.directory.path().join("sick"), "").unwrap();
    }

    /// `/health` answers 200 again.
    pub fn get_well(&self) {
        std::fs::remove_file(self.directory.path().join("sick")).unwrap();
    }

    /// It accepts (the kernel does that), and never answers.
    pub fn hang(&self) {
        self.child.signal(Signal::STOP);
    }

    /// It goes on where it hung.
    pub fn go_on(&self) {
        self.child.signal(Signal::CONT);
    }

    /// What it has answered: `METHOD uri status` a line, in order.
    pub fn seen(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.directory.path().join("access.log"));
        log.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The bytes of `/big.bin`.
    pub fn big(&self) -> Vec<u8> {
        std::fs::read(self.directory.path().join("site/big.bin")).unwrap()
    }
}

impl Server for Nginx {
    fn name(&self) -> &str {
        &self.name
    }
    fn address(&self) -> SocketAddr {
        self.address
    }
}

fn preamble(path: &str) -> String {
    let mut text = format!(
        "daemon off; master_process off; pid {path}/nginx.pid; error_log {path}/error.log warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
         log_format seen '$request_method $request_uri $status';\n\
         access_log {path}/access.log seen;\n\
         keepalive_requests 10000000; client_max_body_size 64m; large_client_header_buffers 8 128k;\n\
         types {{ text/html html; text/css css; image/jpeg jpg; application/octet-stream bin; }}\n\
         default_type text/plain;\n"
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(text, "{kind}_temp_path {path}/{kind};").unwrap();
    }
    text
}

fn site(name: &str, address: SocketAddr, path: &str) -> String {
    format!(
        "server {{ listen {address}; root {path}/site;\n\
         location / {{ try_files $uri @name; }}\n\
         location @name {{ return 200 {name}; }}\n\
         location = /name {{ return 200 {name}; }}\n\
         location = /host {{ return 200 $http_host; }}\n\
         location = /500 {{ return 500 {name}; }}\n\
         location = /503 {{ return 503 {name}; }}\n\
         location = /health {{ if (-f {path}/sick) {{ return 503; }} return 200 'all is well with {name}'; }}\n\
         location = /page {{ if (-f {path}/sick) {{ return 503; }} return 200 {name}; }}\n\
         location = /small {{ client_max_body_size 1k; try_files /page.html =404; }}\n\
         location = /moved {{ return 302 /elsewhere; }}\n\
         location = /headers {{ default_type application/json; return 200 '{{\"x-real-ip\":\"$http_x_real_ip\",\
         \"x-forwarded-for\":\"$http_x_forwarded_for\",\"x-forwarded-proto\":\"$http_x_forwarded_proto\",\
         \"host\":\"$http_host\",\"connection\":\"$http_connection\",\"te\":\"$http_te\",\
         \"steering\":\"$http_x_gateway_destination_endpoint\",\"pool\":\"$http_x_evenkeel_pool\",\
         \"retry-on\":\"$http_x_envoy_retry_on\",\"max-retries\":\"$http_x_envoy_max_retries\",\
         \"original-dst\":\"$http_x_envoy_original_dst_host\",\"proxy\":\"$http_proxy\",\"server\":\"{name}\"}}'; }}\n\
         location = /trailers {{ add_trailer X-Check sum-of-$arg_n; add_header Trailer X-Check; try_files /page.html =404; }}\n\
         location = /held {{ limit_rate 2k; try_files /held.bin =404; }}\n\
         }}\n"
    )
}

fn write_site(directory: &TempDir) {
    let site = directory.path().join("site");
    for folder in ["static", "images"] {
        std::fs::create_dir_all(site.join(folder)).unwrap();
    }
    std::fs::write(site.join("page.html"), "<p>a page</p>\n").unwrap();
    std::fs::write(site.join("static/site.css"), "p { color: green }\n").unwrap();
    std::fs::write(site.join("images/one.jpg"), [0xff, 0xd8, 0xff, 0xe0]).unwrap();
    std::fs::write(site.join("held.bin"), vec![b'h'; 256 << 10]).unwrap();
    // Bytes that look random, so that a chunk lost, doubled or swapped cannot go unnoticed.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let big: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(BIG_BYTES / 8)
    .flatten()
    .collect();
    std::fs::write(site.join("big.bin"), big).unwrap();
}
