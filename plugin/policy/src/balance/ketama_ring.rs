//! nginx's ring of points for `hash … consistent`, with an index that makes looking up as cheap for 10,000 servers as for 10.
//!
//! A server has 160 points for each unit of its weight: `p₁ = crc32(HOST NUL PORT 0₃₂)`, `pₖ = crc32(HOST NUL PORT pₖ₋₁)`,
//! the previous point as four little-endian bytes. A key belongs to the first point that is not before its own CRC. Of equal
//! points the one of the server that stands first counts (`ngx_http_upstream_init_chash`).
//!
//! The points are sorted by spreading them over buckets by their highest bits, about [`POINTS_PER_BUCKET`] in each, and sorting
//! within; the buckets then serve as the index. A look-up is two reads and a few comparisons, a point takes 7 bytes.

use crc32fast::Hasher;

/// Points for each unit of weight (nginx's figure).
const POINTS_PER_WEIGHT: u64 = 160;
/// Most points of a ring, 10 MiB of them, apart from one for each server: 10,000 units of weight. Where nginx would make a
/// larger ring, everybody has points in proportion, the first of the chain. Less in tests, where laws build hundreds of
/// rings.
const POINTS_MAX: u64 = if cfg!(test) { 4_000 } else { 1_600_000 };
const POINTS_PER_BUCKET: u64 = 4;
/// Bits of the first of two steps of spreading: 256 places that are written to in turns.
const COARSE_BITS: u32 = 8;
/// Points of one bucket that are sorted by insertion; chains of CRCs spread so well that more are not to be expected.
const INSERTION_MAX: usize = 64;

/// Points in order, each with the server it belongs to.
#[derive(Debug)]
pub(super) struct KetamaRing {
    points: Vec<u32>,
    servers: Vec<u16>,
    /// Where the points of each bucket begin; one entry more than there are buckets.
    starts: Vec<u32>,
    /// Bits of a point that are not its bucket's number.
    shift: u32,
}

/// What a server's points begin with: the CRC of its configured address, the colon before the port replaced by a NUL.
pub(super) fn chain_start(address: &str) -> u32 {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let mut hasher = Hasher::new();
    hasher.update(host.as_bytes());
    hasher.update(&[0]);
    hasher.update(port.as_bytes());
    hasher.finalize()
}

/// The points of one server in the order of its chain.
fn chain(start: u32, count: u64) -> impl Iterator<Item = u32> {
    let mut previous = 0_u32;
    (0..count).map(move |_| {
        previous = crc_of_word(start, previous);
        previous
    })
}

/// A CRC carried on over the four little-endian bytes of a word: four look-ups side by side instead of one after the other.
fn crc_of_word(crc: u32, word: u32) -> u32 {
    let state = !crc ^ word;
    let [[a, b, c, d], [one, two, three, four]] =
        [state.to_le_bytes().map(usize::from), [3, 2, 1, 0]];
    let look_up = |step: usize, byte: usize| {
        WORD_STEPS
            .get(step)
            .and_then(|step| step.get(byte))
            .copied()
            .unwrap_or(0)
    };
    !(look_up(one, a) ^ look_up(two, b) ^ look_up(three, c) ^ look_up(four, d))
}

/// What a byte of the state becomes after one step and up to three more of zeros, by their number.
static WORD_STEPS: [[u32; 256]; 4] = word_steps();

#[expect(
    clippy::indexing_slicing,
    reason = "the compiler runs it, and says when an index is wrong"
)]
const fn word_steps() -> [[u32; 256]; 4] {
    /// The polynomial of CRC-32, its bits turned round.
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let mut steps = [[0; 256]; 4];
    let mut byte: u32 = 0;
    while byte < 256 {
        let (mut state, mut step) = (byte, 0);
        while step < 4 {
            let mut bit = 0;
            while bit < 8 {
                state = if state & 1 == 1 {
                    state >> 1 ^ POLYNOMIAL
                } else {
                    state >> 1
                };
                bit += 1;
            }
            steps[step][byte as usize] = state;
            step += 1;
        }
        byte += 1;
    }
    steps
}

impl KetamaRing {
    /// A ring of servers, each given as its [`chain_start`] and its weight.
    pub(super) fn build(servers: &[(u32, u16)]) -> Self {
        let wanted = servers
            .iter()
            .map(|(_, weight)| u64::from(*weight))
            .sum::<u64>()
            * POINTS_PER_WEIGHT;
        // How many of its points a server gets: all, or its part of the most there may be.
        let count = |weight: u16| {
            let points = u64::from(weight) * POINTS_PER_WEIGHT;
            if wanted <= POINTS_MAX {
                points
            } else {
                (points * POINTS_MAX / wanted).max(1)
            }
        };
        let total: u64 = servers.iter().map(|(_, weight)| count(*weight)).sum();
        let bits = (total / POINTS_PER_BUCKET)
            .max(2)
            .next_power_of_two()
            .ilog2();
        let mut chains = Vec::with_capacity(usize::try_from(total).unwrap_or(0));
        for (start, weight) in servers {
            chains.extend(chain(*start, count(*weight)));
        }
        let owners = servers
            .iter()
            .zip(0_u16..)
            .flat_map(|((_, weight), owner)| {
                std::iter::repeat_n(owner, usize::try_from(count(*weight)).unwrap_or(0))
            });
        let mut ring = Self {
            points: vec![0; chains.len()],
            servers: vec![0; chains.len()],
            starts: vec![0; (1 << bits) + 1],
            shift: u32::BITS - bits,
        };
        // In two steps, so that each writes to few places at a time: memory of 10 MiB at random costs more than all else.
        let coarse_bits = bits.min(COARSE_BITS);
        let mut coarse = vec![0; (1 << coarse_bits) + 1];
        let all = chains.iter().copied().zip(owners);
        ring.spread(all, u32::BITS - coarse_bits, 0, &mut coarse);
        drop(chains);
        let mut starts = std::mem::take(&mut ring.starts);
        let fine = 1 << (bits - coarse_bits);
        let mut part: Vec<(u32, u16)> = Vec::new();
        for (place, bounds) in coarse.windows(2).enumerate() {
            let [from, end] = [bounds.first(), bounds.last()]
                .map(|bound| bound.map_or(0, |bound| *bound as usize));
            let Some(points) = ring.points.get(from..end) else {
                break;
            };
            part.clear();
            part.extend(
                points
                    .iter()
                    .copied()
                    .zip(ring.servers.iter().skip(from).copied()),
            );
            if let Some(starts) = starts.get_mut(place * fine..=(place + 1) * fine) {
                ring.spread(part.iter().copied(), ring.shift, from, starts);
            }
        }
        ring.starts = starts;
        ring.sort_buckets();
        ring
    }

    /// Puts points where they belong by their bits from `shift` on, beginning at `from`, in the order in which they come;
    /// `starts` becomes where those of each value begin, and where the last end. Its buckets are a power of two.
    fn spread(
        &mut self,
        points: impl Iterator<Item = (u32, u16)> + Clone,
        shift: u32,
        from: usize,
        starts: &mut [u32],
    ) {
        let mask = starts.len().saturating_sub(2);
        let bucket = |point: u32| (point >> shift) as usize & mask;
        starts.fill(0);
        // Counted one place further on, so that after summing up `starts[b]` is where bucket b begins.
        for (point, _) in points.clone() {
            if let Some(count) = starts.get_mut(bucket(point) + 1) {
                *count += 1;
            }
        }
        let from = u32::try_from(from).unwrap_or(u32::MAX);
        let mut sum = from;
        for start in starts.iter_mut() {
            sum += *start;
            *start = sum;
        }
        // From here `starts[b]` is the next free place of bucket b, and in the end where bucket b + 1 begins.
        for (point, server) in points {
            let Some(next) = starts.get_mut(bucket(point)) else {
                continue;
            };
            let place = *next as usize;
            *next += 1;
            if let (Some(point_place), Some(server_place)) =
                (self.points.get_mut(place), self.servers.get_mut(place))
            {
                (*point_place, *server_place) = (point, server);
            }
        }
        starts.rotate_right(1);
        starts
            .first_mut()
            .into_iter()
            .for_each(|first| *first = from);
    }

    /// Puts each bucket in order and closes the gaps that points leave that are there twice.
    fn sort_buckets(&mut self) {
        let mut from = 0;
        let mut again: Vec<usize> = Vec::new();
        for end in self.starts.iter().skip(1).map(|end| *end as usize) {
            if let (Some(points), Some(servers)) = (
                self.points.get_mut(from..end),
                self.servers.get_mut(from..end),
            ) {
                sort_together(points, servers);
                let twice = points
                    .windows(2)
                    .enumerate()
                    .filter(|(_, pair)| pair.first() == pair.last());
                again.extend(twice.map(|(place, _)| from + place + 1));
            }
            from = end;
        }
        if again.is_empty() {
            return;
        }
        // One point in some thousands: everything between two of them moves as a whole.
        let (mut kept, mut from) = (0, 0);
        for end in again.iter().copied().chain([self.points.len()]) {
            self.points.copy_within(from..end, kept);
            self.servers.copy_within(from..end, kept);
            kept += end - from;
            from = end + 1;
        }
        self.points.truncate(kept);
        self.servers.truncate(kept);
        let mut gone = again.iter().peekable();
        let mut shift = 0;
        for start in &mut self.starts {
            while gone.next_if(|place| **place < *start as usize).is_some() {
                shift += 1;
            }
            *start -= shift;
        }
    }

    /// Where its points are in memory, and how many: another ring has others.
    #[cfg(test)]
    pub(super) fn identity(&self) -> (*const u32, usize) {
        (self.points.as_ptr(), self.points.len())
    }

    /// The place of the first point that is not before `hash`; the number of points if all are before it.
    pub(super) fn find(&self, hash: u32) -> usize {
        let bucket = (hash >> self.shift) as usize;
        let bound = |bucket: usize| self.starts.get(bucket).map_or(0, |start| *start as usize);
        let (from, end) = (bound(bucket), bound(bucket + 1));
        let points = self.points.get(from..end).unwrap_or_default();
        from + points.partition_point(|point| *point < hash)
    }

    /// The server of a place; places go round.
    pub(super) fn server(&self, place: usize) -> Option<usize> {
        let place = place.checked_rem(self.servers.len())?;
        self.servers.get(place).map(|server| usize::from(*server))
    }
}

/// Sorts points, their servers with them; equal ones keep their order.
fn sort_together(points: &mut [u32], servers: &mut [u16]) {
    if points.len() > INSERTION_MAX {
        let mut pairs: Vec<(u32, u16)> = points
            .iter()
            .copied()
            .zip(servers.iter().copied())
            .collect();
        pairs.sort_by_key(|(point, _)| *point);
        for (pair, (point, server)) in pairs.into_iter().zip(points.iter_mut().zip(servers)) {
            (*point, *server) = pair;
        }
        return;
    }
    for sorted in 1..points.len() {
        let mut place = sorted;
        // Ends: each round goes one place down.
        while place > 0
            && matches!(points.get(place - 1..=place), Some([before, this]) if before > this)
        {
            points.swap(place - 1, place);
            servers.swap(place - 1, place);
            place -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// nginx's way, word for word: all points, a stable sort, the first of equals.
    fn by_sorting(servers: &[(u32, u16)]) -> Vec<(u32, u16)> {
        let mut all: Vec<(u32, u16)> = Vec::new();
        for ((start, weight), server) in servers.iter().zip(0..) {
            all.extend(
                chain(*start, u64::from(*weight) * POINTS_PER_WEIGHT).map(|point| (point, server)),
            );
        }
        all.sort_by_key(|(point, _)| *point);
        all.dedup_by_key(|(point, _)| *point);
        all
    }

    /// The three servers of the golden vectors: 640 points.
    fn three() -> KetamaRing {
        let servers = [
            ("127.0.0.1:21821", 1),
            ("127.0.0.1:21822", 2),
            ("127.0.0.1:21823", 1),
        ];
        KetamaRing::build(&servers.map(|(address, weight)| (chain_start(address), weight)))
    }

    /// Real nginx 1.22.1.
    #[test]
    fn keys_belong_to_the_servers_that_nginx_says() {
        let ring = three();
        assert_eq!(ring.points.len(), 640);
        for (key, hash, server) in [
            ("/index.php", 1_864_550_530, 1),
            ("/a", 1_768_979_292, 1),
            ("session123", 2_402_699_837, 1),
            ("m5nh62mo90nlkl56t876uf4pl9", 3_299_498_569, 2),
        ] {
            assert_eq!(crc32fast::hash(key.as_bytes()), hash, "{key}");
            assert_eq!(ring.server(ring.find(hash)), Some(server), "{key}");
        }
    }

    /// The first point of A, worked out apart: crc32("127.0.0.1\0" "21821" "\0\0\0\0").
    #[test]
    fn a_chain_goes_from_point_to_point() {
        let start = chain_start("127.0.0.1:21821");
        let points: Vec<u32> = chain(start, 2).collect();
        assert_eq!(points[0], crc32fast::hash(b"127.0.0.1\x0021821\0\0\0\0"));
        let second = [b"127.0.0.1\x0021821".as_slice(), &points[0].to_le_bytes()].concat();
        assert_eq!(points[1], crc32fast::hash(&second));
        assert_eq!(chain_start("[::1]:80"), crc32fast::hash(b"[::1]\x0080"));
    }

    #[test]
    fn is_what_sorting_all_points_gives() {
        proptest!(ProptestConfig::with_cases(64), |(servers in proptest::collection::vec((any::<u32>(), 1u16..3), 1..11), twin in any::<bool>(), hashes in proptest::collection::vec(any::<u32>(), 50))| {
            let mut servers = servers;
            if twin {
                // Every point of the last server is there already: none of its own stays.
                servers.push((servers[0].0, 3));
            }
            let (ring, sorted) = (KetamaRing::build(&servers), by_sorting(&servers));
            let points: Vec<(u32, u16)> = ring.points.iter().copied().zip(ring.servers.iter().copied()).collect();
            prop_assert_eq!(&points, &sorted);
            for hash in hashes.into_iter().chain([0, u32::MAX]).chain(sorted.iter().map(|(point, _)| *point)) {
                prop_assert_eq!(ring.find(hash), sorted.partition_point(|(point, _)| *point < hash));
            }
        });
    }

    #[test]
    fn crowded_buckets_are_sorted_too() {
        let mut points: Vec<u32> = (0..200).map(|point: u32| point * 7_919 % 97).collect();
        let mut servers: Vec<u16> = (0..200).collect();
        let mut expected: Vec<(u32, u16)> = points
            .iter()
            .copied()
            .zip(servers.iter().copied())
            .collect();
        expected.sort();
        sort_together(&mut points, &mut servers);
        assert_eq!(
            points.into_iter().zip(servers).collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn a_ring_is_never_larger_than_its_bound() {
        let ring = KetamaRing::build(&[
            (chain_start("10.0.0.1:80"), 65_535),
            (chain_start("10.0.0.2:80"), 65_535),
            (chain_start("10.0.0.3:80"), 1),
        ]);
        let bound = usize::try_from(POINTS_MAX).unwrap() + 3;
        assert!(
            ring.points.len() <= bound && ring.points.len() > bound / 2,
            "{}",
            ring.points.len()
        );
        assert!(ring.servers.contains(&2));
        assert_eq!(KetamaRing::build(&[]).server(0), None);
        assert_eq!(KetamaRing::build(&[]).find(7), 0);
    }
}
