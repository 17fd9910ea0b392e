//! Some records at a time, in the order of the hashes that name their files: a page reads the names of
//! all records, and no record but its own. In the order of ids each page would read every record.

use super::{Record, RecordError, Records};

impl<R: Record> Records<R> {
    /// At most `most` of the `wanted` records (0: all) whose hash comes after `after`, and whether there
    /// are more. One that goes away meanwhile is left out.
    pub(crate) fn page(
        &self,
        after: &str,
        most: usize,
        wanted: impl Fn(&R) -> bool,
    ) -> Result<(Vec<R>, bool), RecordError> {
        let mut paths = self.files(&format!(".{}", R::KIND))?;
        let hash = |path: &std::path::Path| {
            let name = path.file_stem().unwrap_or_default();
            name.as_encoded_bytes().to_vec()
        };
        paths.retain(|path| hash(path).as_slice() > after.as_bytes());
        paths.sort_unstable();
        let mut found = Vec::new();
        for path in paths {
            let Some(record) = self.read(&path)?.filter(&wanted) else {
                continue;
            };
            if most > 0 && found.len() == most {
                return Ok((found, true));
            }
            found.push(record);
        }
        Ok((found, false))
    }
}
