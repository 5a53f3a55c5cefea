//! Metrics that guests define: counters, gauges, histograms, rendered as Prometheus text.
//!
//! A guest's number for a metric is its VM's own (Envoy's too); below, metrics of one name are one metric of the process. Counting is on
//! the path of every request, so a counter or histogram has one cell per VM, written by that VM's thread only (a plain
//! load and store, no locked instruction, a cache line nobody else writes), and the sum is made when somebody asks. Gauges are shared:
//! one VM may raise what another lowers. A counter keeps what a dead VM had counted.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::process::Process;
use crate::status::Status;

/// Most metrics of a process, and of one VM.
pub(crate) const METRICS_MAX: usize = 16_384;
/// Longest name, bytes.
pub(crate) const NAME_BYTES_MAX: usize = 256;
/// Upper bounds of histogram buckets: Envoy's defaults, which suit milliseconds (`source/common/stats/histogram_impl.h`), as whole numbers.
const BOUNDS: [u64; 18] = [
    1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000,
    1_800_000, 3_600_000,
];

/// What a metric is; the numbers are the ABI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(crate) fn from_abi(number: u32) -> Option<Self> {
        [Kind::Counter, Kind::Gauge, Kind::Histogram]
            .into_iter()
            .find(|kind| kind.to_abi() == number)
    }

    fn to_abi(self) -> u32 {
        match self {
            Kind::Counter => 0,
            Kind::Gauge => 1,
            Kind::Histogram => 2,
        }
    }
}

/// A number with one writer.
#[repr(align(128))]
#[derive(Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, amount: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(amount),
            Ordering::Relaxed,
        );
    }
}

/// The distribution one VM has seen. The last bucket has no bound.
#[repr(align(128))]
#[derive(Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum: AtomicU64,
}

impl Histogram {
    fn record(&self, value: u64) {
        let at = BOUNDS
            .iter()
            .position(|bound| value <= *bound)
            .unwrap_or(BOUNDS.len());
        if let Some(bucket) = self.buckets.get(at) {
            bucket.store(
                bucket.load(Ordering::Relaxed).wrapping_add(1),
                Ordering::Relaxed,
            );
        }
        self.sum.store(
            self.sum.load(Ordering::Relaxed).wrapping_add(value),
            Ordering::Relaxed,
        );
    }

    fn add_to(&self, total: &mut Distribution) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum = sum.wrapping_add(bucket.load(Ordering::Relaxed));
        }
        total.sum = total.sum.wrapping_add(self.sum.load(Ordering::Relaxed));
    }
}

#[derive(Default, Clone)]
struct Distribution {
    buckets: [u64; BOUNDS.len() + 1],
    sum: u64,
}

/// One metric of the process.
enum Family {
    Counter {
        cells: Vec<Weak<Counter>>,
        retired: u64,
    },
    Gauge(Arc<AtomicU64>),
    Histogram {
        cells: Vec<Weak<Histogram>>,
        retired: Distribution,
    },
}

impl Family {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Family::Counter {
                cells: Vec::new(),
                retired: 0,
            },
            Kind::Gauge => Family::Gauge(Arc::default()),
            Kind::Histogram => Family::Histogram {
                cells: Vec::new(),
                retired: Distribution::default(),
            },
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Family::Counter { .. } => Kind::Counter,
            Family::Gauge(_) => Kind::Gauge,
            Family::Histogram { .. } => Kind::Histogram,
        }
    }

    fn join(&mut self) -> Cell {
        match self {
            Family::Counter { cells, .. } => {
                let cell = Arc::new(Counter::default());
                cells.push(Arc::downgrade(&cell));
                Cell::Counter(cell)
            }
            Family::Gauge(value) => Cell::Gauge(value.clone()),
            Family::Histogram { cells, .. } => {
                let cell = Arc::new(Histogram::default());
                cells.push(Arc::downgrade(&cell));
                Cell::Histogram(cell)
            }
        }
    }

    fn leave(&mut self, cell: &Cell) {
        match (self, cell) {
            (Family::Counter { cells, retired }, Cell::Counter(own)) => {
                *retired = retired.wrapping_add(own.0.load(Ordering::Relaxed));
                cells.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(own)));
            }
            (Family::Histogram { cells, retired }, Cell::Histogram(own)) => {
                own.add_to(retired);
                cells.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(own)));
            }
            _ => {}
        }
    }

    fn value(&self) -> u64 {
        match self {
            Family::Counter { cells, retired } => cells
                .iter()
                .filter_map(Weak::upgrade)
                .fold(*retired, |sum, cell| {
                    sum.wrapping_add(cell.0.load(Ordering::Relaxed))
                }),
            Family::Gauge(value) => value.load(Ordering::Relaxed),
            Family::Histogram { .. } => 0,
        }
    }
}

/// All metrics of a process, by their legal names.
#[derive(Default)]
pub(crate) struct Metrics {
    families: Mutex<BTreeMap<String, Family>>,
}

impl Metrics {
    pub(crate) fn render(&self, out: &mut String) {
        for (name, family) in self.families().iter() {
            // Writing to a string does not fail.
            let _ = match family {
                Family::Counter { .. } => {
                    writeln!(out, "# TYPE {name} counter\n{name} {}", family.value())
                }
                Family::Gauge(_) => writeln!(
                    out,
                    "# TYPE {name} gauge\n{name} {}",
                    family.value().cast_signed()
                ),
                Family::Histogram { cells, retired } => {
                    let mut total = retired.clone();
                    cells
                        .iter()
                        .filter_map(Weak::upgrade)
                        .for_each(|cell| cell.add_to(&mut total));
                    render_histogram(out, name, &total)
                }
            };
        }
    }

    fn families(&self) -> MutexGuard<'_, BTreeMap<String, Family>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn render_histogram(out: &mut String, name: &str, total: &Distribution) -> std::fmt::Result {
    writeln!(out, "# TYPE {name} histogram")?;
    let mut count: u64 = 0;
    for (bound, bucket) in BOUNDS.iter().zip(&total.buckets) {
        count = count.wrapping_add(*bucket);
        writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}")?;
    }
    count = count.wrapping_add(total.buckets.last().copied().unwrap_or(0));
    writeln!(
        out,
        "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {}\n{name}_count {count}",
        total.sum
    )
}

/// What a VM writes to.
enum Cell {
    Counter(Arc<Counter>),
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Histogram>),
}

/// The metrics of one VM, by its own numbers: position times four plus the kind, as in Envoy.
pub(crate) struct VmMetrics {
    process: Process,
    known: Vec<(Arc<str>, Cell)>,
    /// Positions in `known`: a guest may define the same one as often as it likes.
    by_name: HashMap<Arc<str>, usize>,
}

impl VmMetrics {
    pub(crate) fn new(process: &Process) -> Self {
        Self {
            process: process.clone(),
            known: Vec::new(),
            by_name: HashMap::new(),
        }
    }

    /// The number of this metric; the same for the same name. BadArgument: no such kind, or the name is of another kind already.
    /// InternalFailure: too many, or too long a name.
    pub(crate) fn define(&mut self, kind: u32, name: &[u8]) -> Result<u32, Status> {
        let kind = Kind::from_abi(kind).ok_or(Status::BadArgument)?;
        if name.len() > NAME_BYTES_MAX {
            return Err(Status::InternalFailure);
        }
        let name = legal(name).ok_or(Status::BadArgument)?;
        let mut families = self.process.metrics().families();
        let full = families.len() >= METRICS_MAX;
        if families
            .get(&name)
            .is_some_and(|family| family.kind() != kind)
        {
            return Err(Status::BadArgument);
        }
        if let Some(at) = self.by_name.get(name.as_str()) {
            return number(*at, kind);
        }
        if self.known.len() >= METRICS_MAX || (full && !families.contains_key(&name)) {
            return Err(Status::InternalFailure);
        }
        let cell = families
            .entry(name.clone())
            .or_insert_with(|| Family::new(kind))
            .join();
        drop(families);
        let (name, at): (Arc<str>, usize) = (name.into(), self.known.len());
        self.by_name.insert(Arc::clone(&name), at);
        self.known.push((name, cell));
        number(at, kind)
    }

    /// Envoy's rules: counters only go up (and not by 0), gauges go by any offset, histograms do not know it (BadArgument).
    pub(crate) fn increment(&self, id: u32, offset: i64) -> Result<(), Status> {
        match self.cell(id) {
            Some((_, Cell::Counter(cell))) if offset > 0 => cell.add(offset.cast_unsigned()),
            Some((_, Cell::Gauge(value))) => {
                value.fetch_add(offset.cast_unsigned(), Ordering::Relaxed);
            }
            None if id & 3 < 2 => return Err(Status::NotFound),
            _ => return Err(Status::BadArgument),
        }
        Ok(())
    }

    /// Envoy's rules: adds to a counter, sets a gauge, records in a histogram.
    pub(crate) fn record(&self, id: u32, value: u64) -> Result<(), Status> {
        match self.cell(id).ok_or(Status::NotFound)? {
            (_, Cell::Counter(cell)) => cell.add(value),
            (_, Cell::Gauge(gauge)) => gauge.store(value, Ordering::Relaxed),
            (_, Cell::Histogram(histogram)) => histogram.record(value),
        }
        Ok(())
    }

    /// The value of the whole process. BadArgument for histograms.
    pub(crate) fn get(&self, id: u32) -> Result<u64, Status> {
        match self.cell(id) {
            Some((_, Cell::Gauge(value))) => Ok(value.load(Ordering::Relaxed)),
            Some((name, Cell::Counter(_))) => self
                .process
                .metrics()
                .families()
                .get(name)
                .map(Family::value)
                .ok_or(Status::NotFound),
            None if id & 3 < 2 => Err(Status::NotFound),
            _ => Err(Status::BadArgument),
        }
    }

    fn cell(&self, id: u32) -> Option<(&str, &Cell)> {
        let (name, cell) = self.known.get((id >> 2) as usize)?;
        let kind = match cell {
            Cell::Counter(_) => Kind::Counter,
            Cell::Gauge(_) => Kind::Gauge,
            Cell::Histogram(_) => Kind::Histogram,
        };
        (id & 3 == kind.to_abi()).then_some((name, cell))
    }
}

impl Drop for VmMetrics {
    fn drop(&mut self) {
        let mut families = self.process.metrics().families();
        for (name, cell) in &self.known {
            if let Some(family) = families.get_mut(&**name) {
                family.leave(cell);
            }
        }
    }
}

fn number(at: usize, kind: Kind) -> Result<u32, Status> {
    let at = u32::try_from(at).map_err(|_| Status::InternalFailure)?;
    Ok((at << 2) | kind.to_abi())
}

/// A name Prometheus takes: `[a-zA-Z_:][a-zA-Z0-9_:]*`, everything else becomes `_`. `None` for an empty one.
fn legal(name: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(name.len() + 1);
    if name.first()?.is_ascii_digit() {
        out.push('_');
    }
    out.extend(name.iter().map(|byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':') {
            char::from(*byte)
        } else {
            '_'
        }
    }));
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(process: &Process) -> String {
        let mut out = String::new();
        process.render_metrics(&mut out);
        out
    }

    #[test]
    fn counters_of_several_vms_add_up_and_survive_them() {
        let process = Process::new();
        let (mut a, mut b) = (VmMetrics::new(&process), VmMetrics::new(&process));
        let (in_a, in_b) = (
            a.define(0, b"my.requests").unwrap(),
            b.define(0, b"my.requests").unwrap(),
        );
        a.increment(in_a, 2).unwrap();
        b.record(in_b, 3).unwrap();
        assert_eq!(a.get(in_a), Ok(5));
        drop(b);
        assert_eq!(a.get(in_a), Ok(5));
        assert_eq!(
            rendered(&process),
            "# TYPE my_requests counter\nmy_requests 5\n"
        );
    }

    #[test]
    fn gauges_are_shared() {
        let process = Process::new();
        let (mut a, mut b) = (VmMetrics::new(&process), VmMetrics::new(&process));
        let (in_a, in_b) = (
            a.define(1, b"9lives").unwrap(),
            b.define(1, b"9lives").unwrap(),
        );
        a.record(in_a, 4).unwrap();
        b.increment(in_b, -5).unwrap();
        assert_eq!(a.get(in_a), Ok((-1_i64).cast_unsigned()));
        assert_eq!(rendered(&process), "# TYPE _9lives gauge\n_9lives -1\n");
    }

    #[test]
    fn histograms_have_cumulative_buckets() {
        let process = Process::new();
        let mut vm = VmMetrics::new(&process);
        let id = vm.define(2, b"ms").unwrap();
        [1, 7, u64::from(u32::MAX)]
            .iter()
            .for_each(|value| vm.record(id, *value).unwrap());
        let text = rendered(&process);
        for line in [
            "ms_bucket{le=\"1\"} 1\n",
            "ms_bucket{le=\"10\"} 2\n",
            "ms_bucket{le=\"+Inf\"} 3\n",
            "ms_sum 4294967303\n",
            "ms_count 3\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn answers_as_envoy_does() {
        let mut vm = VmMetrics::new(&Process::new());
        let (counter, gauge, histogram) = (
            vm.define(0, b"c").unwrap(),
            vm.define(1, b"g").unwrap(),
            vm.define(2, b"h").unwrap(),
        );
        assert_eq!(vm.define(0, b"c"), Ok(counter));
        assert_eq!(
            [vm.define(3, b"x"), vm.define(1, b"c"), vm.define(0, b"")],
            [Err(Status::BadArgument); 3]
        );
        assert_eq!(
            vm.define(0, &[b'n'; NAME_BYTES_MAX + 1]),
            Err(Status::InternalFailure)
        );
        assert_eq!(
            [
                vm.increment(counter, 0),
                vm.increment(counter, -1),
                vm.increment(histogram, 1)
            ],
            [Err(Status::BadArgument); 3]
        );
        assert_eq!(
            [vm.increment(gauge, -1), vm.record(histogram, 1)],
            [Ok(()); 2]
        );
        assert_eq!(
            (vm.increment(400, 1), vm.record(403, 1), vm.get(401)),
            (
                Err(Status::NotFound),
                Err(Status::NotFound),
                Err(Status::NotFound)
            )
        );
        assert_eq!(
            (vm.get(histogram), vm.get(403), vm.increment(403, 1)),
            (
                Err(Status::BadArgument),
                Err(Status::BadArgument),
                Err(Status::BadArgument)
            )
        );
    }
}
