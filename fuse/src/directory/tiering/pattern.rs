//! Patterns of paths: `*` within a name, `**` over names, `?` for one byte.
//!
//! A pattern without a slash is of a name at any depth (`*.tmp`); one with a slash of the whole path
//! from the root of the volume (`ckpt/**`, `*/raw/*.bin`).

/// Whether `path` is what `pattern` says.
pub(super) fn matches(pattern: &str, path: &[u8]) -> bool {
    let pattern = pattern.trim_start_matches('/').as_bytes();
    if pattern.contains(&b'/') {
        return all(pattern, path);
    }
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    all(pattern, name)
}

/// What a star may take.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// `*`: bytes of one name.
    Name,
    /// `**`: anything.
    All,
    /// `**/` at the beginning of a name: whole names with their slashes, or nothing.
    Names,
}

/// Where to go on when what was tried does not fit: the pattern after a star, and up to where in the
/// text the star has taken.
#[derive(Clone, Copy)]
struct Star {
    pattern: usize,
    text: usize,
    takes: Takes,
}

impl Star {
    /// Takes a little more; `false` when it cannot.
    fn more(&mut self, text: &[u8]) -> bool {
        let rest = &text[self.text..];
        let taken = match self.takes {
            Takes::Name => rest.first().is_some_and(|byte| *byte != b'/').then_some(1),
            Takes::All => (!rest.is_empty()).then_some(1),
            Takes::Names => rest.iter().position(|byte| *byte == b'/').map(|at| at + 1),
        };
        self.text += taken.unwrap_or(0);
        taken.is_some()
    }
}

/// Goes back to the innermost star of each kind only, which is enough: what follows a later star can
/// be found wherever the earlier one has stopped. No input makes it slow.
fn all(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    let (mut name, mut deep): (Option<Star>, Option<Star>) = (None, None);
    loop {
        if pattern.get(at) == Some(&b'*') {
            let begins = at == 0 || pattern[at - 1] == b'/';
            let (length, takes) = match (pattern.get(at + 1), pattern.get(at + 2)) {
                (Some(b'*'), Some(b'/')) if begins => (3, Takes::Names),
                (Some(b'*'), _) => (2, Takes::All),
                _ => (1, Takes::Name),
            };
            at += length;
            let star = Star {
                pattern: at,
                text: position,
                takes,
            };
            (name, deep) = match takes {
                Takes::Name => (Some(star), deep),
                Takes::All | Takes::Names => (None, Some(star)),
            };
            continue;
        }
        let fits = match (pattern.get(at), text.get(position)) {
            (None, None) => return true,
            (Some(b'?'), Some(byte)) => *byte != b'/',
            (Some(wanted), Some(byte)) => wanted == byte,
            _ => false,
        };
        if fits {
            (at, position) = (at + 1, position + 1);
        } else if let Some(star) = name.as_mut()
            && star.more(text)
        {
            (at, position) = (star.pattern, star.text);
        } else if let Some(star) = deep.as_mut()
            && star.more(text)
        {
            (at, position, name) = (star.pattern, star.text, None);
        } else {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a policy would move what it was told to leave.
    #[test]
    fn patterns_say_what_they_seem_to() {
        let yes = [
            ("*.bin", "a/b/x.bin"),
            ("ckpt/**", "ckpt/a/b"),
            ("/ckpt/**", "ckpt/a"),
            ("**/raw/*.bin", "a/b/raw/x.bin"),
            ("**/raw/*.bin", "raw/x.bin"),
            ("a/**/z", "a/z"),
            ("a/**/z", "a/b/c/z"),
            ("*/x", "a/x"),
            ("file-??", "d/file-07"),
            ("**", "any/thing"),
            ("a*b*c/d", "aXbYc/d"),
        ];
        for (pattern, path) in yes {
            assert!(matches(pattern, path.as_bytes()), "{pattern} {path}");
        }
        let no = [
            ("*.bin", "x.bin.tmp"),
            ("ckpt/**", "other/ckpt/a"),
            ("*/x", "a/b/x"),
            ("a/*", "a/b/c"),
            ("file-??", "file-7"),
            ("a/**/z", "b/z"),
            ("?", ""),
        ];
        for (pattern, path) in no {
            assert!(!matches(pattern, path.as_bytes()), "{pattern} {path}");
        }
    }

    // Without it a name that somebody chose could hold up every scan.
    #[test]
    fn no_name_is_slow() {
        let pattern = "*a".repeat(30) + "/b";
        assert!(!matches(&pattern, "a".repeat(4000).as_bytes()));
    }
}
