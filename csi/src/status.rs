//! What went wrong, as the codes of the interface: one place for each kind of error.

use tonic::Status;

use crate::{AttributeError, MountError, RecordError};

impl From<AttributeError> for Status {
    fn from(error: AttributeError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl From<MountError> for Status {
    fn from(error: MountError) -> Self {
        let text = error.to_string();
        match error {
            MountError::Outside { .. } => Self::invalid_argument(text),
            // Nothing was changed; somebody has to look what is there.
            MountError::Occupied { .. } => Self::failed_precondition(text),
            MountError::Io { .. } => Self::internal(text),
        }
    }
}

impl From<RecordError> for Status {
    fn from(error: RecordError) -> Self {
        let text = error.to_string();
        match error {
            RecordError::Damaged { .. } => Self::data_loss(text),
            RecordError::Io { .. } => Self::internal(text),
        }
    }
}
