//! nginx's ring of points for `hash … consistent`, with an index that makes looking up as cheap for 10,000 servers as for 10.
//!
//! A server has 160 points for each unit of its weight: `p₁ = crc32(HOST NUL PORT 0₃₂)`, `pₖ = crc32(HOST NUL PORT pₖ₋₁)`, the previous
//! point as four little-endian bytes. A key belongs to the first point that is not before its own CRC. Of equal points the one of
//! the server that stands first counts (`ngx_http_upstream_init_chash`).
//!
//! The points are sorted by spreading them over buckets by their highest bits, about [`POINTS_PER_BUCKET`] in each, and sorting
//! within; the buckets then serve as the index. That is two passes over the chains of CRCs instead of a sort of 1.6 million
//! points, needs no second copy of them, and leaves 6 bytes a point.

use crc32fast::Hasher;

/// Points for each unit of weight (nginx's figure).
const POINTS_PER_WEIGHT: u64 = 160;
/// Most points of a ring, 13 MiB of them, apart from one for each server: 13,107 units of weight. Where nginx would make a larger ring,
/// everybody has points in proportion, the first of the chain. Less in tests, where laws build hundreds of rings.
const POINTS_MAX: u64 = if cfg!(test) { 1 << 14 } else { 1 << 21 };
const POINTS_PER_BUCKET: u64 = 8;
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
        let mut hasher = Hasher::new_with_initial(start);
        hasher.update(&previous.to_le_bytes());
        previous = hasher.finalize();
        previous
    })
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
        let shift = u32::BITS - bits;
        let bucket = |point: u32| (point >> shift) as usize;
        // Counted one place further on, so that after summing up `starts[b]` is where bucket b begins.
        let mut starts = vec![0_u32; (1 << bits) + 1];
        for (start, weight) in servers {
            for point in chain(*start, count(*weight)) {
                starts
                    .get_mut(bucket(point) + 1)
                    .into_iter()
                    .for_each(|place| *place += 1);
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let size = usize::try_from(total).unwrap_or(0);
        let (mut points, mut owners) = (vec![0_u32; size], vec![0_u16; size]);
        // From here `starts[b]` is the next free place of bucket b, and in the end where bucket b + 1 begins.
        for ((start, weight), owner) in servers.iter().zip(0_u16..) {
            for point in chain(*start, count(*weight)) {
                let Some(next) = starts.get_mut(bucket(point)) else {
                    continue;
                };
                let place = *next as usize;
                if let (Some(point_place), Some(owner_place)) =
                    (points.get_mut(place), owners.get_mut(place))
                {
                    (*point_place, *owner_place) = (point, owner);
                }
                *next += 1;
            }
        }
        starts.rotate_right(1);
        starts.first_mut().into_iter().for_each(|first| *first = 0);
        let mut ring = Self {
            points,
            servers: owners,
            starts,
            shift,
        };
        ring.sort_buckets();
        ring
    }

    /// Puts each bucket in order and closes the gaps that points had left that were there twice.
    fn sort_buckets(&mut self) {
        let (mut from, mut kept) = (0, 0);
        let mut last = None;
        for place in 1..self.starts.len() {
            let Some(end) = self.starts.get(place).map(|end| *end as usize) else {
                break;
            };
            if let (Some(points), Some(servers)) = (
                self.points.get_mut(from..end),
                self.servers.get_mut(from..end),
            ) {
                sort_together(points, servers);
            }
            for index in from..end {
                let (Some(point), Some(server)) = (
                    self.points.get(index).copied(),
                    self.servers.get(index).copied(),
                ) else {
                    break;
                };
                if last == Some(point) {
                    continue;
                }
                last = Some(point);
                if let (Some(to), Some(to_server)) =
                    (self.points.get_mut(kept), self.servers.get_mut(kept))
                {
                    (*to, *to_server) = (point, server);
                }
                kept += 1;
            }
            from = end;
            if let Some(end) = self.starts.get_mut(place) {
                *end = u32::try_from(kept).unwrap_or(u32::MAX);
            }
        }
        self.points.truncate(kept);
        self.servers.truncate(kept);
    }

    pub(super) fn len(&self) -> usize {
        self.points.len()
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
        assert_eq!(ring.len(), 640);
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
        proptest!(ProptestConfig::with_cases(64), |(servers in proptest::collection::vec((any::<u32>(), 1u16..8), 1..12), twin in any::<bool>(), hashes in proptest::collection::vec(any::<u32>(), 50))| {
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
            ring.len() <= bound && ring.len() > bound / 2,
            "{}",
            ring.len()
        );
        assert!(ring.servers.contains(&2));
        assert_eq!(KetamaRing::build(&[]).server(0), None);
        assert_eq!(KetamaRing::build(&[]).find(7), 0);
    }
}
