// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

//! The keys that every device has.

use super::key::{keys, Absent, Key, Kind, Place, Source, Writer};

keys! {
    STATE = Both "state", Kind::Number { min: 0, max: 8 }, by Driver, absent Absent::Number(0), Xen:
        "how far its owner is";
    FRONTEND = Backend "frontend", Kind::Text("path"), by Toolstack, absent Absent::Error, Linux:
        "the frontend's directory";
    FRONTEND_ID = Backend "frontend-id", Kind::DomId, by Toolstack, absent Absent::Error, Linux:
        "the frontend's domain";
    ONLINE = Backend "online", Kind::Flag, by Toolstack, absent Absent::Number(0), Linux:
        "0: the device is being unplugged, so whoever closes it does not come back";
    HOTPLUG_STATUS = Backend "hotplug-status", Kind::Text("`connected` or `error`"), by Toolstack,
        absent Absent::As("not yet run"), Linux:
        "what became of the hotplug script";
    BACKEND = Frontend "backend", Kind::Text("path"), by Toolstack, absent Absent::Error, Linux:
        "the backend's directory";
    BACKEND_ID = Frontend "backend-id", Kind::DomId, by Toolstack, absent Absent::Error, Linux:
        "the backend's domain";
}
