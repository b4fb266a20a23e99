// SPDX-License-Identifier: MIT OR Apache-2.0

use ring_proto::xen::Errno;
use ring_proto::xen::grant_table::GrantError;

/// What the status of one operation on a grant (`GNTST_*`) means to a program.
pub(crate) fn grant_result(status: i16) -> Result<(), Errno> {
    if status == 0 {
        return Ok(());
    }
    Err(match GrantError::from_raw(status) {
        Some(GrantError::BadDomain) => Errno::ESRCH,
        Some(GrantError::BadGntref) => Errno::ENOENT,
        Some(GrantError::PermissionDenied) => Errno::EACCES,
        Some(GrantError::NoSpace | GrantError::NoDeviceSpace) => Errno::ENOSPC,
        Some(GrantError::AddressTooBig) => Errno::ERANGE,
        Some(GrantError::Eagain) => Errno::EAGAIN,
        _ => Errno::EINVAL,
    })
}
