// SPDX-License-Identifier: MIT OR Apache-2.0

//! Watches: who is told of which change, and by what name.

use std::sync::Arc;

use ring_proto::xen::{DomId, Errno};
use ring_proto::xenstore::{Home, PAYLOAD_MAX};

use crate::operation::Scope;
use crate::path::{Target, resolve};

/// One watch of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    /// Absolute, or special.
    path: Arc<str>,
    /// How much of an event's path the client does not see, because it watches a relative path.
    prefix: usize,
    token: Arc<[u8]>,
}

/// What a client is told. It is small: one change can concern a great many watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    watch: Watch,
    /// What changed.
    path: Arc<str>,
}

impl Event {
    /// Path and token, as WATCH_EVENT carries them.
    pub(crate) fn payload(&self) -> Vec<u8> {
        let payload = self.watch.payload(&self.path);
        // A token may leave too little room for the node's own name.
        if payload.len() > PAYLOAD_MAX { self.coarse() } else { payload }
    }

    /// The same, named by the watch's own path: says less, and is true of every change that the watch covers.
    pub(crate) fn coarse(&self) -> Vec<u8> {
        self.watch.payload(&self.watch.path)
    }
}

impl Watch {
    /// A watch of `domid`, on a node that may or may not exist.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an illegal path, or a token so long that no event could carry both.
    pub(crate) fn new(path: &[u8], token: &[u8], domid: DomId) -> Result<Self, Errno> {
        let relative = !matches!(path.first(), Some(b'/' | b'@'));
        let prefix = if relative { Home(domid).to_string().len() + 1 } else { 0 };
        let path = match resolve(path, domid)? {
            Target::Node(path) => path.as_str().into(),
            Target::Special(name) => name.into(),
        };
        let watch = Self { path, prefix, token: token.into() };
        if watch.payload(&watch.path).len() > PAYLOAD_MAX { Err(Errno::EINVAL) } else { Ok(watch) }
    }

    /// Whether both go by the same name and token, as a client that sets or removes one sees it: a relative path names
    /// the same node as the absolute one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.path == other.path && self.token == other.token
    }

    /// The event that says no more than that something is to be looked at. Sent once when the watch is set.
    pub(crate) fn first_event(&self) -> Event {
        Event { watch: self.clone(), path: self.path.clone() }
    }

    /// The event of a change to the node `path`, if it concerns this watch.
    pub(crate) fn event(&self, path: &Arc<str>, scope: Scope) -> Option<Event> {
        let concerns = match scope {
            Scope::Above => is_at_or_below(path, &self.path),
            Scope::Exact => *path == self.path,
            Scope::Silent => false,
        };
        concerns.then(|| Event { watch: self.clone(), path: path.clone() })
    }

    /// The event of a special path, if this watch is on it.
    pub(crate) fn special_event(&self, name: &str) -> Option<Event> {
        (&*self.path == name).then(|| self.first_event())
    }

    fn payload(&self, path: &str) -> Vec<u8> {
        let path = path.as_bytes().get(self.prefix..).unwrap_or_default();
        [path, &[0], &self.token, &[0]].concat()
    }
}

/// Whether a node is `above` or below it.
fn is_at_or_below(path: &str, above: &str) -> bool {
    match path.strip_prefix(above) {
        Some(rest) => rest.is_empty() || rest.starts_with('/') || above == "/",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(watch: &str, path: &str, scope: Scope) -> Option<String> {
        let watch = Watch::new(watch.as_bytes(), b"t", DomId(7)).unwrap();
        let event = watch.event(&path.into(), scope)?;
        Some(String::from_utf8(event.payload()).unwrap())
    }

    #[test]
    fn a_change_concerns_the_node_and_all_above_it() {
        assert_eq!(told("/a", "/a/b", Scope::Above).unwrap(), "/a/b\0t\0");
        assert_eq!(told("/", "/a/b", Scope::Above).unwrap(), "/a/b\0t\0");
        assert_eq!(told("/a/b", "/a/b", Scope::Exact).unwrap(), "/a/b\0t\0");
        for (watch, path, scope) in [
            ("/a/b", "/a", Scope::Above),
            ("/a", "/ab", Scope::Above),
            ("/a", "/a/b", Scope::Exact),
            ("/a", "/a", Scope::Silent),
            ("@releaseDomain", "/a", Scope::Above),
        ] {
            assert_eq!(told(watch, path, scope), None, "{watch} {path} {scope:?}");
        }
    }

    #[test]
    fn a_relative_watch_is_told_relative_paths() {
        assert_eq!(
            told("device", "/local/domain/7/device/vbd", Scope::Above).unwrap(),
            "device/vbd\0t\0"
        );
        assert_eq!(told("device", "/local/domain/70/device", Scope::Above), None);
    }

    #[test]
    fn an_event_fits_into_a_message() {
        let token = vec![b't'; PAYLOAD_MAX - 4];
        let watch = Watch::new(b"/a", &token, DomId(0)).unwrap();
        let event = watch.event(&"/a/b".into(), Scope::Above).unwrap();
        assert_eq!(event.payload(), watch.first_event().payload());
        assert_eq!(event.payload().len(), PAYLOAD_MAX);
        assert_eq!(Watch::new(b"/ab", &token, DomId(0)), Err(Errno::EINVAL));
    }
}
