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
    // A captcha is made on one page and checked on another.
    ("captcha.php", "<?php session_start(); $_SESSION['code'] = '7x2k'; echo 'made by ', getenv('NODE');"),
    ("login.php", "<?php session_start(); $right = ($_SESSION['code'] ?? null) === $_GET['code']; if ($right) $_SESSION['user'] = 'ann';
        echo $right ? 'welcome' : 'wrong captcha';"),
    ("user.php", "<?php session_start(); echo $_SESSION['user'] ?? 'nobody';"),
    ("logout.php", "<?php session_start(); session_destroy(); echo 'bye';"),
    ("regenerate.php", "<?php session_start(); session_regenerate_id(true); echo $_SESSION['user'] ?? 'nobody';"),
    // Reads, thinks, and writes: without a lock two of these at a time count as one.
    ("count.php", "<?php session_start(); $n = $_SESSION['n'] ?? 0; usleep((int)($_GET['us'] ?? 5000)); $_SESSION['n'] = $n + 1; echo $n + 1;"),
    ("cookies.php", "<?php setcookie('one', '1'); setcookie('two', '2'); echo 'set';"),
];

/// A PHP node.
pub struct Php {
    name: String,
    address: SocketAddr,
    directory: TempDir,
    _child: Child,
}

/// Starts a PHP node with the pages above.
pub fn php(name: &str) -> Php {
    php_with(name, &[])
}

/// The same with further directives, as `php -d` takes them. What PHP complains of is in [`Php::errors`].
pub fn php_with(name: &str, directives: &[&str]) -> Php {
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
        "-d",
        "log_errors=1",
        "-d",
        "display_errors=0",
    ]);
    let errors = directory.path().join("errors.log");
    command
        .arg("-d")
        .arg(format!("error_log={}", errors.display()));
    // Sessions in files are this node's own, as on a machine of its own.
    command
        .arg("-d")
        .arg(format!("session.save_path={}", directory.path().display()));
    for directive in directives {
        command.args(["-d", directive]);
    }
    command.env("NODE", name);
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
        directory,
        _child: child,
    };
    eventually(
        &format!("php {name} listens"),
        Duration::from_secs(20),
        || Connection::open(address).map(drop),
    );
    server
}

impl Php {
    /// Warnings and errors of its pages, as PHP logs them.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("errors.log")).unwrap_or_default()
    }
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
