// SPDX-License-Identifier: MIT OR Apache-2.0

//! The concurrency models of `ring-proto`.

use anyhow::Result;

use crate::command::{self, cargo};

/// Runs all models; with at most `preemptions` preemptions in one execution, or as many as each model says. More take
/// longer: 3 are seconds, 5 are minutes.
///
/// # Errors
///
/// When a model fails, or one still holds with a barrier left out.
pub fn run(preemptions: Option<usize>) -> Result<()> {
    let mut test = cargo();
    test.env("RUSTFLAGS", "--cfg loom").env_remove("CARGO_ENCODED_RUSTFLAGS");
    if let Some(preemptions) = preemptions {
        test.env("LOOM_MAX_PREEMPTIONS", preemptions.to_string());
    }
    // A target folder of its own: everything is compiled with another configuration.
    test.args(["test", "--release", "--package", "ring-proto", "--test", "loom"]);
    command::run(test.args(["--target-dir", "target/loom"]))
}
