// SPDX-License-Identifier: MIT OR Apache-2.0
use crate::Error;
use std::os::fd::*;
use std::time::Duration;
#[derive(Debug)]
pub(crate) struct GrantedPages;
#[derive(Debug)]
pub(crate) struct MappedPages;
#[derive(Debug)]
pub(crate) struct EventFile(OwnedFd);
impl EventFile {
    pub(crate) fn notify(&self) -> Result<(), Error> {
        Ok(())
    }
    pub(crate) fn rearm(&self) -> Result<(), Error> {
        Ok(())
    }
    pub(crate) fn wait(&self, _: Option<Duration>) -> Result<bool, Error> {
        Ok(false)
    }
}
impl AsFd for EventFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
