//! Compressed parts of footers and logs, unpacked with a limit: hostile bytes cost no more than it.

use std::io::Read;

/// How a part is compressed, of the ways that are read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// As it is.
    Plain,
    /// Snappy's raw form, without frames.
    Snappy,
    /// Deflate, without a head or a checksum.
    Deflate,
    /// The same in files of gzip.
    Gzip,
    /// Zstandard frames.
    Zstd,
}

/// The bytes that were packed; none when they are damaged or more than `limit`.
pub(super) fn unpack(codec: Codec, packed: &[u8], limit: usize) -> Option<Vec<u8>> {
    match codec {
        Codec::Plain => (packed.len() <= limit).then(|| packed.to_vec()),
        Codec::Snappy => {
            let length = snap::raw::decompress_len(packed).ok()?;
            // A length of its own that no input of this size could have is a claim, not a length.
            let possible = length <= limit && length / SNAPPY_BEST <= packed.len();
            let mut decoder = snap::raw::Decoder::new();
            possible
                .then(|| decoder.decompress_vec(packed).ok())
                .flatten()
        }
        Codec::Deflate => read(flate2::read::DeflateDecoder::new(packed), limit),
        Codec::Gzip => read(flate2::read::MultiGzDecoder::new(packed), limit),
        Codec::Zstd => read(ruzstd::decoding::StreamingDecoder::new(packed).ok()?, limit),
    }
}

/// All that a decoder gives; none when that is more than `limit`.
fn read(decoder: impl Read, limit: usize) -> Option<Vec<u8>> {
    let mut found = Vec::new();
    // One byte more than may come tells what is longer.
    let most = u64::try_from(limit).ok()?.saturating_add(1);
    decoder.take(most).read_to_end(&mut found).ok()?;
    (found.len() <= limit).then_some(found)
}

/// Most bytes that one byte of Snappy's form stands for: a copy of 64 bytes takes at least two, and the
/// whole has a head.
const SNAPPY_BEST: usize = 64;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    const CODECS: [Codec; 5] = [
        Codec::Plain,
        Codec::Snappy,
        Codec::Deflate,
        Codec::Gzip,
        Codec::Zstd,
    ];

    proptest! {
        // The bytes are a stranger's: whatever they are, the answer comes and is no longer than allowed.
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for codec in CODECS {
                if let Some(found) = unpack(codec, &bytes, 1000) {
                    prop_assert!(found.len() <= 1000);
                }
            }
        }
    }

    // A limit that does not hold for one of them is a way to take the memory of the catalog.
    #[test]
    fn what_is_longer_than_the_limit_is_refused() {
        let text = vec![7_u8; 5000];
        let snappy = snap::raw::Encoder::new().compress_vec(&text).unwrap();
        let level = flate2::Compression::fast();
        let mut deflate = Vec::new();
        let mut gzip = Vec::new();
        flate2::read::DeflateEncoder::new(&text[..], level)
            .read_to_end(&mut deflate)
            .unwrap();
        flate2::read::GzEncoder::new(&text[..], level)
            .read_to_end(&mut gzip)
            .unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(
            text.as_slice(),
            ruzstd::encoding::CompressionLevel::Fastest,
        );
        for (codec, packed) in [
            (Codec::Plain, text.clone()),
            (Codec::Snappy, snappy),
            (Codec::Deflate, deflate),
            (Codec::Gzip, gzip),
            (Codec::Zstd, zstd),
        ] {
            assert_eq!(unpack(codec, &packed, 5000).unwrap(), text, "{codec:?}");
            assert_eq!(unpack(codec, &packed, 4999), None, "{codec:?}");
        }
    }
}
