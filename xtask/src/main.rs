//! Build, test and lab automation.

fn main() {}
