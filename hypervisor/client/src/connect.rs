// SPDX-License-Identifier: MIT OR Apache-2.0

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::hosted::Options;
use crate::{Client, Error, dev, hosted};

/// Reaches the hypervisor that `spec` names: `hosted:DIR` for the hosted one that serves this directory, `dev` for the
/// one below this Linux. Empty is `dev` where the drivers are there.
///
/// `options` is for the hosted hypervisor. In front of a real one this program is in its domain already.
///
/// # Errors
///
/// When `spec` is neither, or the hypervisor cannot be reached; the error names what was tried.
pub fn connect(spec: &str, options: Options) -> Result<Arc<dyn Client>, Error> {
    let unknown = |reason: &str| Error::Io {
        operation: format!("connect to the hypervisor {spec:?}"),
        source: io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned()),
    };
    match spec.split_once(':') {
        Some(("hosted", "")) => Err(unknown("which directory? hosted:DIR")),
        Some(("hosted", dir)) => Ok(Arc::new(hosted::connect(Path::new(dir), options)?)),
        None if spec == "dev" => Ok(Arc::new(dev::DeviceClient::open()?)),
        None if spec.is_empty() && dev::is_present() => Ok(Arc::new(dev::DeviceClient::open()?)),
        None if spec.is_empty() => {
            Err(unknown("this system has no /dev/xen/gntdev; say hosted:DIR"))
        }
        _ => Err(unknown("say hosted:DIR or dev")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_what_was_asked() {
        for (spec, expected) in [
            ("hosted:", "connect to the hypervisor \"hosted:\": which directory? hosted:DIR"),
            ("xen", "connect to the hypervisor \"xen\": say hosted:DIR or dev"),
            ("hosted:/nonexistent", "connect to the hypervisor at /nonexistent/hypervisor.sock: "),
        ] {
            let error = connect(spec, Options::default()).err().unwrap().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
