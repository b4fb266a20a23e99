// SPDX-License-Identifier: MIT OR Apache-2.0

//! From the payload of a request to the payload of its reply.

use ring_proto::xen::{DomId, Errno};
use ring_proto::xenstore::{ACK, Home, MessageType, PAYLOAD_MAX, Strings, decimal, one_string};

use crate::client::ClientId;
use crate::operation::{mkdir, rm, set_permissions, write};
use crate::path::{Target, resolve, resolve_node};
use crate::permissions::{Need, Permissions};
use crate::store::Store;
use crate::tree::Node;

/// One request, taken off the wire. None of it is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) kind: u32,
    pub(crate) transaction: u32,
    pub(crate) payload: &'a [u8],
}

impl<'a> Request<'a> {
    /// The only string.
    fn string(&self) -> Result<&'a [u8], Errno> {
        one_string(self.payload).ok_or(Errno::EINVAL)
    }

    /// The first two strings; more may follow.
    fn two_strings(&self) -> Result<(&'a [u8], &'a [u8]), Errno> {
        let mut strings = Strings::new(self.payload);
        strings.next().zip(strings.next()).ok_or(Errno::EINVAL)
    }
}

/// Does what a client asks for, and returns the payload of the reply.
///
/// # Errors
///
/// What the reply names instead; `ENOSYS` for a request that there is not.
pub(crate) fn handle(
    store: &mut Store,
    id: ClientId,
    request: Request<'_>,
) -> Result<Vec<u8>, Errno> {
    use MessageType as M;
    // What only the store says is no request.
    let kind = M::from_raw(request.kind).filter(|kind| !matches!(kind, M::WatchEvent | M::Error));
    let kind = kind.ok_or(Errno::ENOSYS)?;
    let domid = store.domid(id)?;
    if for_domain_0(kind) && domid != DomId::DOM0 {
        return Err(Errno::EACCES);
    }
    let in_transaction = request.transaction;
    // Watches are of a connection, whatever transaction the request names.
    if !matches!(kind, M::Watch | M::Unwatch) {
        store.check_transaction(id, in_transaction)?;
    }
    let node = |path| resolve_node(path, domid);
    match kind {
        M::Read => {
            let path = node(request.string()?)?;
            return store.look_at(id, in_transaction, &path, |node| Ok(node.value().to_vec()));
        }
        M::Directory => {
            let path = node(request.string()?)?;
            return store.look_at(id, in_transaction, &path, directory);
        }
        M::DirectoryPart => {
            let (path, offset) = request.two_strings()?;
            let offset = decimal(offset).ok_or(Errno::EINVAL)?;
            return store.look_at(id, in_transaction, &node(path)?, |node| {
                Ok(directory_part(node, offset as usize))
            });
        }
        M::GetPerms => {
            return match resolve(request.string()?, domid)? {
                Target::Node(path) => {
                    let answer = |node: &Node| Ok(node.permissions().to_payload());
                    store.look_at(id, in_transaction, &path, answer)
                }
                Target::Special(name) => {
                    let list = store.special(&name)?;
                    let allowed = list.allow(domid, Need::Read);
                    if allowed { Ok(list.to_payload()) } else { Err(Errno::EACCES) }
                }
            };
        }
        M::Write => {
            let mut strings = Strings::new(request.payload);
            let path = node(strings.next().ok_or(Errno::EINVAL)?)?;
            let value = strings.rest();
            store.change(id, in_transaction, &path, |tree, caller, path| {
                write(tree, caller, path, value)
            })?;
        }
        M::Mkdir => store.change(id, in_transaction, &node(request.string()?)?, mkdir)?,
        M::Rm => store.change(id, in_transaction, &node(request.string()?)?, rm)?,
        M::SetPerms => {
            let mut strings = Strings::new(request.payload);
            let target = resolve(strings.next().ok_or(Errno::EINVAL)?, domid)?;
            let list = Permissions::parse(strings)?;
            match target {
                Target::Node(path) => {
                    store.change(id, in_transaction, &path, |tree, caller, path| {
                        set_permissions(tree, caller, path, list)
                    })?;
                }
                Target::Special(_) if domid != DomId::DOM0 => return Err(Errno::EACCES),
                Target::Special(name) => *store.special(&name)? = list,
            }
        }
        M::Watch => {
            let (path, token) = request.two_strings()?;
            store.watch(id, path, token)?;
        }
        M::Unwatch => {
            let (path, token) = request.two_strings()?;
            store.unwatch(id, path, token)?;
        }
        M::ResetWatches => store.reset(id),
        M::TransactionStart => {
            let transaction = store.start(id, in_transaction)?;
            return Ok(format!("{transaction}\0").into_bytes());
        }
        M::TransactionEnd => {
            let commit = match request.string()? {
                b"T" => true,
                b"F" => false,
                _ => return Err(Errno::EINVAL),
            };
            store.end(id, in_transaction, commit)?;
        }
        M::GetDomainPath => {
            let domid = parse_domid(request.string()?)?;
            return Ok(format!("{}\0", Home(domid)).into_bytes());
        }
        M::IsDomainIntroduced => {
            let known = store.is_introduced(parse_domid(request.string()?)?);
            return Ok(if known { b"T\0" } else { b"F\0" }.to_vec());
        }
        M::Introduce => {
            let mut strings = Strings::new(request.payload);
            let domid = parse_guest(strings.next().ok_or(Errno::EINVAL)?)?;
            // The frame is of use to a store that maps rings by number.
            strings.next().ok_or(Errno::EINVAL)?;
            match strings.next().and_then(decimal) {
                None | Some(0) => return Err(Errno::EINVAL),
                Some(_) => store.introduce(domid),
            }
        }
        M::Release => {
            let domid = known_guest(store, request)?;
            store.release(domid);
        }
        // It would let a domain's second shutdown be told. A domain here shuts down by a release, which is told anyway.
        M::Resume => {
            known_guest(store, request)?;
        }
        M::Control => return control(request.payload),
        // A device model that acts in its guest's name would need SET_TARGET; Causeway runs none.
        M::SetTarget | M::WatchEvent | M::Error => return Err(Errno::ENOSYS),
    }
    Ok(ACK.to_vec())
}

/// Whether only domain 0 may send it.
fn for_domain_0(kind: MessageType) -> bool {
    use MessageType as M;
    matches!(
        kind,
        M::Control | M::Introduce | M::Release | M::IsDomainIntroduced | M::Resume | M::SetTarget
    )
}

/// Children of a node, each with its NUL.
fn directory(node: &Node) -> Result<Vec<u8>, Errno> {
    if node.children_len() > PAYLOAD_MAX {
        return Err(Errno::E2BIG);
    }
    Ok(listing(node))
}

/// As much of the children as one message takes, from `offset` on; an empty name ends the list.
fn directory_part(node: &Node, offset: usize) -> Vec<u8> {
    let mut reply = format!("{}\0", node.generation()).into_bytes();
    let children = listing(node);
    // Behind the end, or within a name: the client does not go by what it was told before.
    let mut rest = children.get(offset..).unwrap_or_default();
    while let Some(nul) = rest.iter().position(|&byte| byte == 0) {
        let (name, after) = rest.split_at(nul + 1);
        // One byte stays free for the end of the list.
        if reply.len() + name.len() >= PAYLOAD_MAX {
            return reply;
        }
        reply.extend_from_slice(name);
        rest = after;
    }
    reply.push(0);
    reply
}

fn listing(node: &Node) -> Vec<u8> {
    node.children().flat_map(|name| name.bytes().chain([0])).collect()
}

fn parse_domid(text: &[u8]) -> Result<DomId, Errno> {
    let number = decimal(text).ok_or(Errno::EINVAL)?;
    u16::try_from(number).map(DomId).map_err(|_| Errno::EINVAL)
}

/// A domain that can be introduced: a real one, and not domain 0.
fn parse_guest(text: &[u8]) -> Result<DomId, Errno> {
    let domid = parse_domid(text)?;
    if domid == DomId::DOM0 || domid >= DomId::FIRST_RESERVED {
        Err(Errno::EINVAL)
    } else {
        Ok(domid)
    }
}

fn known_guest(store: &Store, request: Request<'_>) -> Result<DomId, Errno> {
    let domid = parse_guest(request.string()?)?;
    if store.is_introduced(domid) { Ok(domid) } else { Err(Errno::ENOENT) }
}

/// The commands for whoever looks after the store.
fn control(payload: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut strings = Strings::new(payload);
    match strings.next() {
        Some(b"help") => Ok(b"help\nprint\n\0".to_vec()),
        Some(b"print") => {
            let text = strings.next().ok_or(Errno::EINVAL)?;
            log::info!("{}", text.escape_ascii());
            Ok(ACK.to_vec())
        }
        _ => Err(Errno::EINVAL),
    }
}
