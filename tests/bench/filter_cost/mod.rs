//! What the filter alone costs: the host and `evenkeel.wasm` without a network, one request after the other.
//!
//! Round robin over three servers, ten trusted networks, eleven request headers, a client behind one trusted proxy: what
//! the target for the filter's cost names. The loop without the filter is subtracted. Caches are warm here as they never are
//! in a proxy, so time is the lower bound; instructions (counted by valgrind) do not depend on that.

mod in_proxy;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context as _, Result, bail};
use evenkeel_host::Process;
use evenkeel_host::embedder::HttpStream;
use evenkeel_host::http_filters::{HttpFilters, Verdict};
use evenkeel_tests::filter_alone::FilterAlone;
use evenkeel_tests::memory_stream::MemoryStream;
use serde_json::{Value, json};

use crate::Scale;
use crate::cpu::thread_nanoseconds;
use crate::peers::{evenkeel_binary, generate_for_envoy};
use crate::process::on_path;
use crate::report::{Section, Target, figure};
use crate::statistics::Samples;

pub const REQUEST: [(&str, &str); 11] = [
    (":authority", "www.example.com"),
    (":path", "/shop/item.php?id=1234"),
    (":method", "GET"),
    (":scheme", "http"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br"),
    ("referer", "http://www.example.com/index.php"),
    ("cookie", "PHPSESSID=4kq2v9d0s1b7n3m8c6x5z2l1ha"),
    ("x-forwarded-for", "198.51.100.7"),
];
pub const RESPONSE: [(&str, &str); 5] = [
    (":status", "200"),
    ("server", "nginx"),
    ("date", "Mon, 23 Nov 2026 12:00:00 GMT"),
    ("content-type", "text/html"),
    ("content-length", "1024"),
];

/// rustix asks `prctl` (PR_GET_AUXV, Linux 6.4) where the vDSO is. Valgrind hides the vDSO and does not know of that question, so
/// the answer is a place that is not there, and reading the clock crashes. Where the question fails, rustix asks elsewhere.
const WITHOUT_PRCTL: [&str; 8] = [
    "--seccomp-bpf",
    "-f",
    "-qq",
    "-o",
    "/dev/null",
    "-e",
    "trace=prctl",
    "--inject=prctl:error=EINVAL",
];

/// Whether the loop runs the filter or only its surroundings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    Filter,
    Nothing,
}

pub fn run(scale: &Scale) -> Result<Section> {
    let scratch = tempfile::tempdir()?;
    let wasm = embedded_filter(scratch.path())?;
    let mut with = Samples::default();
    let mut without = Samples::default();
    let mut filter = Filter::start(&std::fs::read(&wasm)?)?;
    let requests = scale.filter_requests;
    filter.pass(requests / 10, With::Filter)?;
    for _ in 0..scale.rounds {
        with.push(nanoseconds(|| filter.pass(requests, With::Filter))? / requests as f64);
        without.push(nanoseconds(|| filter.pass(requests, With::Nothing))? / requests as f64);
    }
    let cost = with
        .median()
        .zip(without.median())
        .map(|(with, without)| (with - without) / 1000.0);
    let range = with
        .range()
        .map(|(low, high)| format!("{:.2}–{:.2}", low / 1000.0, high / 1000.0))
        .unwrap_or_default();
    let instructions = scale.counted_requests.and_then(|counted| {
        let count = instructions(&wasm, counted);
        count
            .inspect_err(|error| eprintln!("instructions were not counted: {error:#}"))
            .ok()
    });
    let in_proxy = scale.filter_in_proxy.then(|| in_proxy::run(scale));
    let in_proxy = in_proxy.transpose().unwrap_or_else(|error| {
        eprintln!("the filter's cost within the proxy was not measured: {error:#}");
        None
    });
    let mut markdown = format!(
        "**Filter alone** (host and evenkeel.wasm, no network; round robin, 3 servers, 10 trusted networks, 11 headers): \
         {} µs and {} instructions per request (with the loop around it {range} µs; the loop alone {} µs).",
        figure(cost, 2),
        figure(instructions, 0),
        figure(without.median().map(|nanoseconds| nanoseconds / 1000.0), 2),
    );
    let mut targets = vec![Target {
        what: "filter alone, µs per request".to_owned(),
        measured: cost,
        at_most: 2.0,
        digits: 2,
    }];
    if let Some(in_proxy) = &in_proxy {
        let difference = in_proxy.difference();
        let range = difference
            .range()
            .map(|(low, high)| format!("{low:.2}–{high:.2}"))
            .unwrap_or_default();
        markdown.push_str(&format!(
            "\n\n**Filter within evenkeel** (saturated, one core, no access log; with it − with a filter that only steers, medians of {} \
             interleaved rounds): {} − {} = {} µs of CPU per request (difference of each round: {range}).",
            scale.rounds,
            figure(in_proxy.with.median(), 2),
            figure(in_proxy.without.median(), 2),
            figure(difference.median(), 2),
        ));
        targets.push(Target {
            what: "filter within evenkeel, with − without, µs per request".to_owned(),
            measured: difference.median(),
            at_most: 2.0,
            digits: 2,
        });
    }
    let json = json!({
        "in_proxy": in_proxy.as_ref().map(|it| json!({"with_us": it.with.values(), "without_us": it.without.values()})),
        "us_per_request": cost, "with_ns": with.values(), "without_ns": without.values(), "instructions_per_request": instructions,
    });
    Ok(Section {
        key: "filter",
        markdown,
        json,
        invalid: Vec::new(),
        targets,
    })
}

/// The loop by itself, for valgrind.
pub fn pass(wasm: &Path, requests: u64, with: With) -> Result<()> {
    Filter::start(&std::fs::read(wasm)?)?.pass(requests, with)
}

/// Has `evenkeel envoy` write the filter: the one that is embedded in the binary.
pub fn embedded_filter(folder: &Path) -> Result<PathBuf> {
    let configuration = folder.join("evenkeel.yaml");
    let document = json!({
        "listeners": [{"name": "web", "bind": "127.0.0.1:8080", "mode": "http"}],
        "policy": policy(),
    });
    std::fs::write(&configuration, document.to_string()).context("writing the configuration")?;
    let generated = folder.join("generated");
    generate_for_envoy(&evenkeel_binary()?, &configuration, &generated)?;
    Ok(generated.join("evenkeel.wasm"))
}

fn policy() -> Value {
    let trusted: Vec<String> = (0..10)
        .map(|number| format!("10.{number}.0.0/16"))
        .collect();
    let servers: Vec<Value> = (11..14)
        .map(|host| json!({"address": format!("192.0.2.{host}:80")}))
        .collect();
    json!({
        "real_ip": {"trusted": trusted, "header": "X-Forwarded-For", "recursive": true},
        "routes": [{"match": {"path_prefix": ["/static/"]}, "pool": "images"}, {"pool": "shop"}],
        "pools": {"shop": {"servers": servers}, "images": {"servers": servers}},
    })
}

/// The filter, and one stream's memory.
struct Filter {
    alone: FilterAlone,
    stream: Rc<MemoryStream>,
}

impl Filter {
    fn start(wasm: &[u8]) -> Result<Self> {
        let module = FilterAlone::compile(wasm)?;
        let alone = FilterAlone::start(&module, &Process::new(), &policy())?;
        alone.clock.is_real.set(true);
        let filter = Self {
            alone,
            stream: Rc::new(MemoryStream::default()),
        };
        filter.check()?;
        Ok(filter)
    }

    /// One request shows that the filter does what it is measured for.
    fn check(&self) -> Result<()> {
        self.one(With::Filter)?;
        let steered = self
            .stream
            .request_value("x-gateway-destination-endpoint")
            .unwrap_or_default();
        anyhow::ensure!(
            steered.starts_with("192.0.2."),
            "the filter did not steer: {steered:?}"
        );
        let client = self.stream.request_value("x-real-ip").unwrap_or_default();
        anyhow::ensure!(
            client == "198.51.100.7",
            "the filter found another client: {client:?}"
        );
        Ok(())
    }

    fn pass(&mut self, requests: u64, with: With) -> Result<()> {
        for _ in 0..requests {
            self.one(with)?;
        }
        Ok(())
    }

    fn one(&self, with: With) -> Result<()> {
        self.stream.request(&REQUEST);
        if with == With::Nothing {
            self.stream.response(&RESPONSE);
            std::hint::black_box(&self.stream);
            return Ok(());
        }
        let stream: Rc<dyn HttpStream> = Rc::<MemoryStream>::clone(&self.stream);
        let mut filters = HttpFilters::new(self.alone.chain(), stream);
        continues(&filters.request_headers(true))?;
        self.stream.response(&RESPONSE);
        continues(&filters.response_headers(false))?;
        filters.finish();
        Ok(())
    }
}

pub fn continues(verdict: &Verdict) -> Result<()> {
    match verdict {
        Verdict::Continue => Ok(()),
        other => bail!("the filter did not let the request pass: {other:?}"),
    }
}

/// CPU time of this thread that `work` takes.
pub fn nanoseconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let before = thread_nanoseconds();
    work()?;
    Ok(thread_nanoseconds() - before)
}

/// Instructions per request, filter and host.
fn instructions(wasm: &Path, [few, many]: [u64; 2]) -> Result<f64> {
    let count = |requests: u64, with: With| -> Result<f64> {
        let mut arguments: Vec<OsString> = vec!["filter-loop".into(), "--requests".into()];
        arguments.extend([requests.to_string().into(), "--wasm".into(), wasm.into()]);
        if with == With::Nothing {
            arguments.push("--nothing".into());
        }
        counted_instructions(&arguments)
    };
    let per_request = |with: With| -> Result<f64> {
        Ok((count(many, with)? - count(few, with)?) / (many - few) as f64)
    };
    Ok(per_request(With::Filter)? - per_request(With::Nothing)?)
}

/// Instructions of this program with these arguments, counted by callgrind.
pub fn counted_instructions(arguments: &[OsString]) -> Result<f64> {
    let valgrind = on_path("valgrind").context("no valgrind on the PATH")?;
    let strace = on_path("strace").context("no strace on the PATH")?;
    let mut command = Command::new(&strace);
    command
        .args(WITHOUT_PRCTL)
        .arg(&valgrind)
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(arguments);
    let output = command.output().context("running valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "valgrind ended with {}: {}",
        output.status,
        own_words(&text)
    );
    let line = text
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .context("valgrind counted nothing")?;
    line.1
        .trim()
        .parse()
        .context("valgrind's count is not a number")
}

/// What the program under valgrind said, and how valgrind says that it died.
fn own_words(text: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("==") || line.contains("terminating"));
    lines.take(3).collect::<Vec<_>>().join(" | ")
}
