// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which parts of the lab are complete.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

/// A part that is made once: a file that says from what it was made, written when it is complete.
pub struct Stamp {
    file: PathBuf,
    inputs: String,
}

impl Stamp {
    /// The stamp of a part that is made from `inputs`.
    pub fn new(part: &str, inputs: String) -> Self {
        Self { file: super::folder().join("complete").join(part), inputs }
    }

    /// Whether the part is complete, and made from these inputs.
    pub fn is_current(&self) -> bool {
        fs::read_to_string(&self.file).is_ok_and(|inputs| inputs == self.inputs)
    }

    /// The part is to be made again.
    pub fn clear(&self) {
        let _ = fs::remove_file(&self.file);
    }

    /// The part is complete.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn set(&self) -> Result<()> {
        fs::create_dir_all(super::folder().join("complete"))?;
        Ok(fs::write(&self.file, &self.inputs)?)
    }
}
