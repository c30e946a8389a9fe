//! Whose a partition's folder is: the topic id that stands in it, as in Kafka's `partition.metadata` (KIP-516).

use std::path::Path;

use super::log_directory::LogDirectory;
use super::replicas::PartitionSpec;
use crate::model::TopicId;
use crate::system::OpenMode;
use crate::system::disk::read_file;

const IDENTITY_FILE: &str = "partition.metadata";

fn identity(spec: &PartitionSpec) -> String {
    format!("version: 0\ntopic_id: {}\n", spec.topic_id)
}

/// Whose folder this is; `None` if nobody's yet, or if a crash left the file torn.
fn read_identity(directory: &LogDirectory, dir: &Path) -> std::io::Result<Option<TopicId>> {
    let path = dir.join(IDENTITY_FILE);
    if !directory.disk().exists(&path) {
        return Ok(None);
    }
    let bytes = read_file(&**directory.disk(), &path)?;
    let text = String::from_utf8(bytes).unwrap_or_default();
    let id = text.strip_prefix("version: 0\ntopic_id: ").and_then(|id| id.strip_suffix('\n'));
    Ok(id.and_then(|id| id.parse().ok()))
}

/// A folder of another incarnation of the topic is moved aside.
pub(super) fn check_identity(
    directory: &LogDirectory,
    spec: &PartitionSpec,
) -> std::io::Result<()> {
    let dir = directory.path.join(spec.name.to_string());
    match read_identity(directory, &dir)? {
        Some(id) if id != spec.topic_id => {
            let aside = directory.path.join(format!("{}.{}-stray", spec.name, id.simple()));
            tracing::warn!(path = %dir.display(), aside = %aside.display(), "folder of another topic id moved aside");
            directory.forget_points(std::slice::from_ref(&spec.name))?;
            directory.disk().rename(&dir, &aside)
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) fn write_identity(
    directory: &LogDirectory,
    spec: &PartitionSpec,
) -> std::io::Result<()> {
    let dir = directory.path.join(spec.name.to_string());
    if read_identity(directory, &dir)? == Some(spec.topic_id) {
        return Ok(());
    }
    let file = directory.disk().open(&dir.join(IDENTITY_FILE), OpenMode::Replace)?;
    file.write_at(&[std::io::IoSlice::new(identity(spec).as_bytes())], 0)
}
