//! What finding the client and the route costs inside `evenkeel.wasm` on our host: many networks and hops, many routes, many expressions.
//!
//! Two filters see the same requests, a hundred of each in turn: one whose configuration has the feature, one whose configuration has not. The
//! difference is what the feature costs. Each case has a few hundred different requests, at random among those that its configuration
//! distinguishes, because one request over and over would have every branch foretold. Caches are warmer than in a proxy: time is a
//! lower bound.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result};
use evenkeel_host::Process;
use evenkeel_host::embedder::HttpStream;
use evenkeel_host::http_filters::HttpFilters;
use evenkeel_policy::random::Sequence;
use evenkeel_tests::filter_alone::FilterAlone;
use evenkeel_tests::memory_stream::MemoryStream;
use serde_json::{Value, json};

use crate::Scale;
use crate::filter_cost::{
    REQUEST, RESPONSE, continues, counted_instructions, embedded_filter, nanoseconds,
};
use crate::report::{Section, Target, figure, table};
use crate::statistics::Samples;

const NETWORKS: u64 = 50;
const HOPS: u64 = 20;
const ROUTES: u64 = 1_000;
const EXPRESSIONS: u64 = 100;
/// Different requests of a case.
const REQUESTS: u64 = 400;
/// Requests to one filter before it is the other's turn.
const TURN: u64 = 100;
/// Under valgrind everything is fifty times slower.
const COUNTED_SHARE: u64 = 10;
/// Where a route of a case leads, and where requests go that none of them matches.
const FOUND: &str = "found";
const OTHERS: &str = "shop";

/// Whether a filter's configuration has what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    There,
    Missing,
}

/// What is measured, in order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Case {
    /// 50 networks, all 20 addresses of X-Forwarded-For but the first trusted; without: nobody is believed.
    RealIp,
    /// The same; without: one network, the last address only.
    RealIpSteps,
    /// 1,000 hosts.
    Hosts,
    /// 1,000 beginnings of paths.
    Prefixes,
    /// 1,000 pairs of both.
    HostsAndPrefixes,
    /// 100 expressions, anchored, of which one matches.
    Regexes,
    /// The same, of which none matches.
    RegexesMissed,
    /// 100 expressions that may begin anywhere, of which one matches.
    RegexesAnywhere,
}

const CASES: [Case; 8] = [
    Case::RealIp,
    Case::RealIpSteps,
    Case::Hosts,
    Case::Prefixes,
    Case::HostsAndPrefixes,
    Case::Regexes,
    Case::RegexesMissed,
    Case::RegexesAnywhere,
];

impl Case {
    fn title(self) -> &'static str {
        match self {
            Self::RealIp => "`real_ip`, 50 networks, 20 hops; over none",
            Self::RealIpSteps => "the same; over one network, one hop",
            Self::Hosts => "1,000 hosts",
            Self::Prefixes => "1,000 path prefixes",
            Self::HostsAndPrefixes => "1,000 pairs of host and path prefix",
            Self::Regexes => "100 path expressions, one matches",
            Self::RegexesMissed => "100 path expressions, none matches",
            Self::RegexesAnywhere => "100 expressions without `^`, one matches",
        }
    }

    fn at_most_ns(self) -> f64 {
        match self {
            Self::Regexes | Self::RegexesMissed | Self::RegexesAnywhere => 10_000.0,
            _ => 1_000.0,
        }
    }

    fn name(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Where its requests go with the feature.
    fn pool(self) -> &'static str {
        match self {
            Self::RealIp | Self::RealIpSteps | Self::RegexesMissed => OTHERS,
            _ => FOUND,
        }
    }

    fn policy(self, feature: Feature) -> Value {
        let mut routes = match feature {
            Feature::There => self.routes(),
            Feature::Missing => Vec::new(),
        };
        routes.push(json!({"pool": OTHERS}));
        let servers: Vec<Value> = (11..14)
            .map(|host| json!({"address": format!("192.0.2.{host}:80")}))
            .collect();
        let pool = json!({"servers": servers});
        let real_ip = |networks: u64, recursive: bool| {
            let trusted: Vec<String> = (0..networks).map(network).collect();
            json!({"trusted": trusted, "header": "X-Forwarded-For", "recursive": recursive})
        };
        let pools = json!({OTHERS: pool, FOUND: pool});
        let real_ip = match (self, feature) {
            (Self::RealIp | Self::RealIpSteps, Feature::There) => real_ip(NETWORKS, true),
            (Self::RealIpSteps, Feature::Missing) => real_ip(1, false),
            _ => return json!({"routes": routes, "pools": pools}),
        };
        json!({"routes": routes, "pools": pools, "real_ip": real_ip})
    }

    fn routes(self) -> Vec<Value> {
        let count = match self {
            Self::RealIp | Self::RealIpSteps => 0,
            Self::Hosts | Self::Prefixes | Self::HostsAndPrefixes => ROUTES,
            Self::Regexes | Self::RegexesMissed | Self::RegexesAnywhere => EXPRESSIONS,
        };
        let route = |number: u64| {
            let conditions = match self {
                Self::RealIp | Self::RealIpSteps | Self::Hosts => json!({"host": host(number)}),
                Self::Prefixes => json!({"path_prefix": prefix(number)}),
                Self::HostsAndPrefixes => {
                    json!({"host": host(number), "path_prefix": prefix(number)})
                }
                Self::Regexes | Self::RegexesMissed => {
                    json!({"path_regex": format!("^/shop{number}/[a-z]+/[0-9]+\\.html$")})
                }
                Self::RegexesAnywhere => {
                    json!({"path_regex": format!("/item{number}-[0-9]+\\.(jpe?g|png|webp)$")})
                }
            };
            json!({"match": conditions, "pool": FOUND})
        };
        (0..count).map(route).collect()
    }

    /// A request, at random.
    fn request(self, random: &mut Sequence) -> Request {
        let mut pairs: Request = REQUEST
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        let mut set = |name: &'static str, value: String| {
            if let Some(pair) = pairs.iter_mut().find(|(known, _)| *known == name) {
                pair.1 = value;
            }
        };
        let (route, item) = (random.below(ROUTES), random.below(1_000_000));
        let expression = random.below(EXPRESSIONS);
        match self {
            Self::RealIp | Self::RealIpSteps => {
                let first = format!("198.51.100.{}", random.below(256));
                let hops = (1..HOPS).map(|_| {
                    let network = 2 * random.below(NETWORKS) + 1;
                    format!("10.{network}.{}.{}", random.below(256), random.below(256))
                });
                let hops: Vec<String> = [first].into_iter().chain(hops).collect();
                set("x-forwarded-for", hops.join(", "));
            }
            Self::Hosts => set(":authority", host(route)),
            Self::Prefixes => set(":path", format!("{}item.php?id={item}", prefix(route))),
            Self::HostsAndPrefixes => {
                set(":authority", host(route));
                set(":path", format!("{}item.php?id={item}", prefix(route)));
            }
            Self::Regexes => set(":path", format!("/shop{expression}/shoes/{item}.html")),
            Self::RegexesMissed => set(":path", format!("/shop{expression}/shoes/{item}.htm")),
            Self::RegexesAnywhere => {
                set(
                    ":path",
                    format!("/images/2026/item{expression}-{item}.webp"),
                );
            }
        }
        pairs
    }

    fn requests(self) -> Vec<Request> {
        let mut random = Sequence::new(1);
        (0..REQUESTS).map(|_| self.request(&mut random)).collect()
    }
}

type Request = Vec<(&'static str, String)>;

/// Every other /16 of 10.0.0.0/8, so that no two are one.
fn network(number: u64) -> String {
    format!("10.{}.0.0/16", 2 * number + 1)
}

fn host(number: u64) -> String {
    format!("www.shop{number}.example.com")
}

fn prefix(number: u64) -> String {
    format!("/applications/shop{number}/")
}

/// What a case costs, nanoseconds and instructions a request.
struct Row {
    case: Case,
    differences: Samples,
    without: Samples,
    instructions: Option<f64>,
}

/// What is measured, and with which filter.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Another filter than the one in the executable.
    #[arg(long)]
    wasm: Option<PathBuf>,
    /// Only these.
    #[arg(long, value_enum, value_delimiter = ',')]
    cases: Vec<Case>,
    /// Count instructions, too: under valgrind, where compiling the filter takes minutes.
    #[arg(long)]
    instructions: bool,
}

pub fn run(scale: &Scale, options: &Options) -> Result<Section> {
    let scratch = tempfile::tempdir()?;
    let wasm: PathBuf = match &options.wasm {
        Some(wasm) => wasm.clone(),
        None => embedded_filter(scratch.path())?,
    };
    let bytes = std::fs::read(&wasm).context("reading the filter")?;
    let cases = CASES
        .iter()
        .filter(|case| options.cases.is_empty() || options.cases.contains(case));
    let mut rows = Vec::new();
    for case in cases {
        let mut row = times(scale, &bytes, *case)?;
        let counted = scale.counted_requests.filter(|_| options.instructions);
        row.instructions = counted.and_then(|counted| {
            instructions(&wasm, *case, counted)
                .inspect_err(|error| eprintln!("instructions were not counted: {error:#}"))
                .ok()
        });
        eprintln!("{}", cells(&row).join("  "));
        rows.push(row);
    }
    let lines: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let columns = [
        "what a request costs more",
        "ns",
        "range",
        "instructions",
        "of",
        "target",
    ];
    let json: BTreeMap<String, Value> = rows
        .iter()
        .map(|row| {
            let values = json!({"ns": row.differences.values(), "without_ns": row.without.values(), "instructions": row.instructions});
            (row.case.name(), values)
        })
        .collect();
    Ok(Section {
        key: "routes",
        markdown: format!(
            "**Client and route** in the filter ({} bytes), with the feature less without, medians of {} rounds.\n\n{}",
            bytes.len(),
            scale.rounds,
            table(&columns, &lines)
        ),
        json: json!(json),
        invalid: Vec::new(),
        targets: rows.iter().map(target).collect(),
    })
}

fn cells(row: &Row) -> Vec<String> {
    let range = row.differences.range();
    let range = range.map(|(low, high)| format!("{low:.0}–{high:.0}"));
    vec![
        row.case.title().to_owned(),
        figure(row.differences.median(), 0),
        range.unwrap_or_default(),
        figure(row.instructions, 0),
        figure(row.without.median(), 0),
        figure(Some(row.case.at_most_ns()), 0),
    ]
}

fn target(row: &Row) -> Target {
    Target {
        what: format!("{}, ns", row.case.title()),
        measured: row.differences.median(),
        at_most: row.case.at_most_ns(),
        digits: 0,
    }
}

fn times(scale: &Scale, wasm: &[u8], case: Case) -> Result<Row> {
    let with = Loop::start(wasm, case, Feature::There)?;
    let without = Loop::start(wasm, case, Feature::Missing)?;
    let mut row = Row {
        case,
        differences: Samples::default(),
        without: Samples::default(),
        instructions: None,
    };
    let turns = (scale.filter_requests / TURN).max(1);
    for looped in [&with, &without] {
        looped.pass(0, scale.filter_requests / 10)?;
    }
    for _ in 0..scale.rounds {
        let (mut with_ns, mut without_ns) = (0.0, 0.0);
        for turn in 0..turns {
            let first = turn * TURN;
            with_ns += nanoseconds(|| with.pass(first, TURN))?;
            without_ns += nanoseconds(|| without.pass(first, TURN))?;
        }
        let requests = (turns * TURN) as f64;
        row.differences.push((with_ns - without_ns) / requests);
        row.without.push(without_ns / requests);
    }
    Ok(row)
}

fn instructions(wasm: &Path, case: Case, counted: [u64; 2]) -> Result<f64> {
    let [few, many] = counted.map(|requests| requests / COUNTED_SHARE);
    let count = |requests: u64, feature: Feature| {
        let mut arguments: Vec<OsString> = vec!["routes-loop".into(), "--case".into()];
        arguments.extend([case.name().into(), "--wasm".into(), wasm.into()]);
        arguments.extend(["--requests".into(), requests.to_string().into()]);
        if feature == Feature::Missing {
            arguments.push("--missing".into());
        }
        counted_instructions(&arguments)
    };
    let per_request = |feature: Feature| -> Result<f64> {
        Ok((count(many, feature)? - count(few, feature)?) / (many - few) as f64)
    };
    Ok(per_request(Feature::There)? - per_request(Feature::Missing)?)
}

/// The loop by itself, for valgrind.
pub fn pass(wasm: &Path, case: Case, feature: Feature, requests: u64) -> Result<()> {
    Loop::start(&std::fs::read(wasm)?, case, feature)?.pass(0, requests)
}

/// A filter, and the requests it gets.
struct Loop {
    alone: FilterAlone,
    stream: Rc<MemoryStream>,
    requests: Vec<Request>,
}

impl Loop {
    fn start(wasm: &[u8], case: Case, feature: Feature) -> Result<Self> {
        let module = FilterAlone::compile(wasm)?;
        let alone = FilterAlone::start(&module, &Process::new(), &case.policy(feature))?;
        alone.clock.is_real.set(true);
        let looped = Self {
            alone,
            stream: Rc::new(MemoryStream::default()),
            requests: case.requests(),
        };
        looped.check(case, feature)?;
        Ok(looped)
    }

    /// Every request shows that the filter does what it is measured for.
    fn check(&self, case: Case, feature: Feature) -> Result<()> {
        let believes = matches!(
            (case, feature),
            (Case::RealIp | Case::RealIpSteps, Feature::There)
        );
        let pool = match feature {
            Feature::There => case.pool(),
            Feature::Missing => OTHERS,
        };
        for request in &self.requests {
            self.one(&pairs(request))?;
            let value = |name: &str| self.stream.request_value(name).unwrap_or_default();
            let client = value("x-real-ip");
            let found = value("x-evenkeel-pool");
            anyhow::ensure!(
                found == pool && client.starts_with("198.51.100.") == believes,
                "the filter found {found:?} for {client:?}, not {pool:?}: {request:?}"
            );
        }
        Ok(())
    }

    fn pass(&self, first: u64, requests: u64) -> Result<()> {
        let first = usize::try_from(first)? % self.requests.len().max(1);
        let cycle = self.requests.iter().cycle().skip(first);
        for request in cycle.take(usize::try_from(requests)?) {
            self.one(&pairs(request))?;
        }
        Ok(())
    }

    fn one(&self, request: &[(&str, &str)]) -> Result<()> {
        self.stream.request(request);
        let stream: Rc<dyn HttpStream> = Rc::<MemoryStream>::clone(&self.stream);
        let mut filters = HttpFilters::new(self.alone.chain(), stream);
        continues(&filters.request_headers(true))?;
        self.stream.response(&RESPONSE);
        continues(&filters.response_headers(false))?;
        filters.finish();
        Ok(())
    }
}

fn pairs(request: &Request) -> Vec<(&str, &str)> {
    request
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}
