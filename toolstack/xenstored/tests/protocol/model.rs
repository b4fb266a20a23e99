// SPDX-License-Identifier: MIT OR Apache-2.0

//! Random sequences of requests by several domains, in and out of transactions, against a store that is one flat map.
//!
//! For transactions the model demands what a user needs, not what the implementation does: a commit that succeeds is
//! as if all of the transaction happened at that moment, answers included; one that fails changes nothing, and did not
//! fail for nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ring_proto::xen::Errno;
use ring_proto::xenstore::MessageType as M;
use xenstored::Quota;

use crate::wire::{Wire, serve};

/// Rights by domain, the owner's entry first: what `n1`, `r2` say.
type Permissions = Vec<(char, u16)>;

/// What is known of one node.
#[derive(Clone, Debug, PartialEq)]
struct Node {
    value: String,
    permissions: Permissions,
}

/// The whole store.
#[derive(Clone, Debug, PartialEq)]
struct Model(BTreeMap<String, Node>);

/// A request on one node.
#[derive(Clone, Debug)]
enum Operation {
    Read,
    Directory,
    GetPerms,
    Write(String),
    Mkdir,
    Rm,
    SetPerms(Permissions),
}

/// One step of a test.
#[derive(Clone, Debug)]
enum Step {
    /// By a domain, in its transaction if it has one open and that is asked for.
    Do { domid: u16, inside: bool, path: String, operation: Operation },
    /// Opens a domain's transaction.
    Start { domid: u16 },
    /// Ends it.
    End { domid: u16, commit: bool },
}

/// A transaction, as the model follows it.
struct Open {
    id: u32,
    /// How many changes others had made when it began.
    began: usize,
    /// The store as it sees it.
    view: Model,
    /// What it did, and the answers.
    log: Vec<(String, Operation, Result<Vec<u8>, Errno>)>,
}

const DOMAINS: [u16; 3] = [0, 1, 2];

fn text(permissions: &Permissions) -> String {
    permissions.iter().map(|(letter, domid)| format!("{letter}{domid}\0")).collect()
}

fn allows(permissions: &Permissions, domid: u16, letter: char) -> bool {
    let (owner, others) = permissions.split_first().unwrap();
    let (rights, _) = others.iter().find(|entry| entry.1 == domid).unwrap_or(owner);
    domid == 0 || domid == owner.1 || *rights == letter || *rights == 'b'
}

fn parent(path: &str) -> Option<&str> {
    match path.rsplit_once('/')? {
        _ if path == "/" => None,
        ("", _) => Some("/"),
        (parent, _) => Some(parent),
    }
}

fn is_below(path: &str, above: &str) -> bool {
    path != above && (above == "/" || path.starts_with(&format!("{above}/")))
}

impl Model {
    fn new() -> Self {
        Self(BTreeMap::from([(
            "/".to_owned(),
            Node { value: String::new(), permissions: vec![('n', 0)] },
        )]))
    }

    /// The closest node at or above a path.
    fn closest<'a>(&self, mut path: &'a str) -> &'a str {
        while !self.0.contains_key(path) {
            path = parent(path).unwrap();
        }
        path
    }

    /// Whether the domain may, and whether the node is there.
    fn access(&self, domid: u16, path: &str, letter: char) -> Result<(), Errno> {
        let closest = self.closest(path);
        match allows(&self.0[closest].permissions, domid, letter) {
            false => Err(Errno::EACCES),
            true if closest == path => Ok(()),
            true => Err(Errno::ENOENT),
        }
    }

    /// Whether a domain may read a node or its parent.
    fn lets_know(&self, domid: u16, path: &str) -> bool {
        let nodes = [self.0.get(path), parent(path).and_then(|parent| self.0.get(parent))];
        nodes.iter().flatten().any(|node| allows(&node.permissions, domid, 'r'))
    }

    fn put(&mut self, domid: u16, path: &str, value: &str) {
        if let Some(node) = self.0.get_mut(path) {
            node.value = value.to_owned();
            return;
        }
        let parent = parent(path).unwrap();
        if !self.0.contains_key(parent) {
            self.put(domid, parent, "");
        }
        let mut permissions = self.0[parent].permissions.clone();
        if domid != 0 {
            permissions[0].1 = domid;
        }
        self.0.insert(path.to_owned(), Node { value: value.to_owned(), permissions });
    }

    /// Does it, and returns the answer and whether it changed anything.
    fn apply(
        &mut self,
        domid: u16,
        path: &str,
        operation: &Operation,
    ) -> (Result<Vec<u8>, Errno>, bool) {
        match self.try_apply(domid, path, operation) {
            Ok((answer, changed)) => (Ok(answer), changed),
            Err(errno) => (Err(errno), false),
        }
    }

    fn try_apply(
        &mut self,
        domid: u16,
        path: &str,
        operation: &Operation,
    ) -> Result<(Vec<u8>, bool), Errno> {
        let ok = b"OK\0".to_vec();
        match operation {
            Operation::Read => {
                self.access(domid, path, 'r')?;
                Ok((self.0[path].value.clone().into_bytes(), false))
            }
            Operation::Directory => {
                self.access(domid, path, 'r')?;
                let children = self.0.keys().filter(|other| parent(other) == Some(path));
                let names = children.map(|child| child.rsplit('/').next().unwrap());
                Ok((names.flat_map(|name| name.bytes().chain([0])).collect(), false))
            }
            Operation::GetPerms => {
                self.access(domid, path, 'r')?;
                Ok((text(&self.0[path].permissions).into_bytes(), false))
            }
            Operation::Write(value) => {
                match self.access(domid, path, 'w') {
                    Ok(()) | Err(Errno::ENOENT) => self.put(domid, path, value),
                    Err(errno) => return Err(errno),
                }
                Ok((ok, true))
            }
            Operation::Mkdir => match self.access(domid, path, 'w') {
                Ok(()) => Ok((ok, false)),
                Err(Errno::ENOENT) => {
                    self.put(domid, path, "");
                    Ok((ok, true))
                }
                Err(errno) => Err(errno),
            },
            Operation::Rm => {
                match self.access(domid, path, 'w') {
                    Err(Errno::ENOENT) if self.0.contains_key(parent(path).unwrap()) => {
                        return Ok((ok, false));
                    }
                    access => access?,
                }
                if path == "/" {
                    return Err(Errno::EINVAL);
                }
                self.0.retain(|other, _| other != path && !is_below(other, path));
                Ok((ok, true))
            }
            Operation::SetPerms(permissions) => {
                self.access(domid, path, 'w')?;
                let owner = self.0[path].permissions[0].1;
                if domid != 0 && domid != owner {
                    return Err(Errno::EACCES);
                }
                if domid != 0 && permissions[0].1 != domid {
                    return Err(Errno::EPERM);
                }
                self.0.get_mut(path).unwrap().permissions.clone_from(permissions);
                Ok((ok, true))
            }
        }
    }
}

fn send(
    wire: &mut Wire,
    transaction: u32,
    path: &str,
    operation: &Operation,
) -> Result<Vec<u8>, Errno> {
    let (kind, rest) = match operation {
        Operation::Read => (M::Read, String::new()),
        Operation::Directory => (M::Directory, String::new()),
        Operation::GetPerms => (M::GetPerms, String::new()),
        Operation::Write(value) => (M::Write, value.clone()),
        Operation::Mkdir => (M::Mkdir, String::new()),
        Operation::Rm => (M::Rm, String::new()),
        Operation::SetPerms(permissions) => (M::SetPerms, text(permissions)),
    };
    wire.ask(kind, transaction, format!("{path}\0{rest}").as_bytes())
}

/// The test: server and model side by side.
struct Pair {
    wires: BTreeMap<u16, Wire>,
    live: Model,
    open: BTreeMap<u16, Open>,
    changes: usize,
}

impl Pair {
    fn step(&mut self, step: Step) {
        match step {
            Step::Start { domid } if !self.open.contains_key(&domid) => {
                let wire = self.wires.get_mut(&domid).unwrap();
                let reply = wire.ask(M::TransactionStart, 0, b"\0").unwrap();
                let id = String::from_utf8(reply).unwrap().trim_end_matches('\0').parse().unwrap();
                let view = self.live.clone();
                self.open.insert(domid, Open { id, began: self.changes, view, log: Vec::new() });
            }
            Step::Start { .. } => {}
            Step::End { domid, commit } => {
                if let Some(open) = self.open.remove(&domid) {
                    self.end(domid, open, commit);
                }
            }
            Step::Do { domid, inside, path, operation } => {
                let open = self.open.get_mut(&domid).filter(|_| inside);
                let wire = self.wires.get_mut(&domid).unwrap();
                let answer = send(wire, open.as_ref().map_or(0, |open| open.id), &path, &operation);
                if let Some(open) = open {
                    let (expected, _) = open.view.apply(domid, &path, &operation);
                    assert_eq!(
                        answer, expected,
                        "domain {domid} in a transaction: {operation:?} {path}"
                    );
                    open.log.push((path, operation, answer));
                } else {
                    let before = self.live.clone();
                    let (expected, changed) = self.live.apply(domid, &path, &operation);
                    assert_eq!(answer, expected, "domain {domid}: {operation:?} {path}");
                    self.changes += usize::from(changed);
                    self.expect_events(&before, changed.then_some(path).into_iter().collect());
                }
            }
        }
    }

    fn end(&mut self, domid: u16, open: Open, commit: bool) {
        let wire = self.wires.get_mut(&domid).unwrap();
        let end = if commit { b"T\0" } else { b"F\0" };
        let answer = wire.ask(M::TransactionEnd, open.id, end);
        let before = self.live.clone();
        let mut changed = Vec::new();
        match answer {
            Err(errno) => {
                assert_eq!(errno, Errno::EAGAIN);
                assert!(commit && self.changes > open.began, "a conflict with nobody");
            }
            Ok(_) if commit => {
                for (path, operation, answer) in &open.log {
                    let (now, change) = self.live.apply(domid, path, operation);
                    assert_eq!(now, *answer, "domain {domid} relied on it: {operation:?} {path}");
                    if change && !changed.contains(path) {
                        changed.push(path.clone());
                    }
                }
                self.changes += usize::from(!changed.is_empty());
            }
            Ok(_) => {}
        }
        self.expect_events(&before, changed);
    }

    /// Each domain hears in order of what it may know, by what was before or by what is now, and of nothing else.
    fn expect_events(&mut self, before: &Model, changed: Vec<String>) {
        for (domid, wire) in &mut self.wires {
            let events: Vec<_> = wire.take_events().into_iter().map(|event| event.0).collect();
            let is_there =
                |path: &str| before.0.contains_key(path) || self.live.0.contains_key(path);
            let lets_know =
                |path: &str| before.lets_know(*domid, path) || self.live.lets_know(*domid, path);
            let knows = |path: &&String| is_there(path) && lets_know(path);
            let expected: Vec<_> = changed.iter().filter(knows).cloned().collect();
            assert_eq!(events, expected, "events of domain {domid}");
        }
    }
}

fn permissions() -> impl Strategy<Value = Permissions> {
    let entry =
        || (prop::sample::select(&['n', 'r', 'w', 'b'][..]), prop::sample::select(&DOMAINS[..]));
    prop::collection::vec(entry(), 1..4)
}

fn step() -> impl Strategy<Value = Step> {
    let domid = || prop::sample::select(&DOMAINS[..]);
    let path =
        prop::sample::select(&["/", "/a", "/a/b", "/a/b/c", "/a/b/c/d", "/a-b", "/e", "/e/f"][..]);
    let operation = prop_oneof![
        2 => Just(Operation::Read),
        2 => Just(Operation::Directory),
        1 => Just(Operation::GetPerms),
        4 => "[a-z]{0,3}".prop_map(Operation::Write),
        2 => Just(Operation::Mkdir),
        2 => Just(Operation::Rm),
        2 => permissions().prop_map(Operation::SetPerms),
    ];
    prop_oneof![
        12 => (domid(), any::<bool>(), path, operation).prop_map(|(domid, inside, path, operation)| {
            Step::Do { domid, inside, path: path.to_owned(), operation }
        }),
        2 => domid().prop_map(|domid| Step::Start { domid }),
        2 => (domid(), prop::bool::weighted(0.9)).prop_map(|(domid, commit)| Step::End { domid, commit }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_store_does_what_the_model_does(root in permissions(), steps in prop::collection::vec(step(), 1..80)) {
        let server = serve(Quota::default());
        let wires = DOMAINS.map(|domid| (domid, Wire::connect(&server, domid))).into();
        let mut pair = Pair { wires, live: Model::new(), open: BTreeMap::new(), changes: 0 };
        for wire in pair.wires.values_mut() {
            wire.ask(M::Watch, 0, b"/\0t\0").unwrap();
            prop_assert_eq!(wire.take_events().len(), 1);
        }
        pair.step(Step::Do { domid: 0, inside: false, path: "/".to_owned(), operation: Operation::SetPerms(root) });
        for step in steps {
            pair.step(step);
        }
    }
}
