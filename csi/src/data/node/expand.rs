//! NodeExpandVolume: the limit of a directory, from its node.
//!
//! The controller has raised it already and asks for nothing here; who calls all the same gets the same
//! answer. The daemon follows the volume's record, so no mount is touched.

use tonic::Status;

use super::Node;
use crate::data::Shown;
use crate::data::size::Size;
use crate::wire::NodeExpandVolumeRequest;

/// Makes a volume that is on this node as large as the request says; how large that is.
///
/// Errors: NOT_FOUND; FAILED_PRECONDITION for a directory that nobody here limits; those of the file system.
pub(super) async fn expand(node: &Node, request: NodeExpandVolumeRequest) -> Result<u64, Status> {
    let size = Size::parse(request.capacity_range.as_ref())?;
    let (staged, _) = node.used(&request.volume_id, &request.volume_path)?;
    let Shown::Directory(directory) = staged.shown()? else {
        return Ok(size.least);
    };
    let id = staged.id().clone();
    let owned = node.clone();
    let work = async move {
        let volume = id.clone();
        let limited = owned
            .off(move |parts| Ok(parts.bases.grow(&directory.path, &volume, size.least)?))
            .await?;
        if !limited {
            return Err(Status::failed_precondition(format!(
                "volume {id} is a directory that was there before: it is as large as its file system; ask \
                 who limits that"
            )));
        }
        Ok(size.least)
    };
    node.0.locks.run(staged.id().as_str(), work).await
}
