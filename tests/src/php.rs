//! `php -S`: the PHP node behind the proxy.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::child::Child;
use crate::cluster::Server;
use crate::{Connection, eventually, peers, ports};

/// Requests that it serves at a time.
const WORKERS: &str = "8";

const SCRIPTS: &[(&str, &str)] = &[
    // What the application is told about the request, as JSON.
    (
        "echo.php",
        "<?php $in = file_get_contents('php://input'); header('Content-Type: application/json');
        echo json_encode(['method' => $_SERVER['REQUEST_METHOD'], 'uri' => $_SERVER['REQUEST_URI'], 'headers' => array_map('bin2hex', getallheaders()),
        'length' => strlen($in), 'fnv' => hash('fnv1a64', $in)]);",
    ),
    // A page that thinks for `s` seconds.
    ("sleep.php", "<?php sleep((int)($_GET['s'] ?? 1)); echo 'slept';"),
    // Server-sent events, one a second, `n` of them.
    (
        "sse.php",
        "<?php header('Content-Type: text/event-stream'); header('Cache-Control: no-cache'); while (ob_get_level()) ob_end_flush();
        for ($i = 0; $i < (int)$_GET['n']; $i++) { echo \"data: $i\\n\\n\"; flush(); usleep(1000000); }",
    ),
    ("cookies.php", "<?php setcookie('one', '1'); setcookie('two', '2'); echo 'set';"),
];

/// A PHP node.
pub struct Php {
    name: String,
    address: SocketAddr,
    _directory: TempDir,
    _child: Child,
}

/// Starts a PHP node with the pages above.
pub fn php(name: &str) -> Php {
    let address = ports::free();
    let directory = TempDir::new().unwrap();
    for (file, script) in SCRIPTS {
        std::fs::write(directory.path().join(file), script).unwrap();
    }
    let mut command = Command::new(peers::need("php"));
    command.args([
        "-d",
        "post_max_size=64M",
        "-d",
        "max_execution_time=0",
        "-d",
        "output_buffering=0",
    ]);
    command
        .arg("-S")
        .arg(address.to_string())
        .arg("-t")
        .arg(directory.path());
    command.env("PHP_CLI_SERVER_WORKERS", WORKERS);
    let child = Child::start(name, &command, &directory.path().join("output.log"));
    let server = Php {
        name: name.to_owned(),
        address,
        _directory: directory,
        _child: child,
    };
    eventually(
        &format!("php {name} listens"),
        Duration::from_secs(20),
        || Connection::open(address).map(drop),
    );
    server
}

impl Server for Php {
    fn name(&self) -> &str {
        &self.name
    }
    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// FNV-1a, 64 bits, as PHP's `hash('fnv1a64', …)` prints it.
pub fn fnv1a64(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
