// SPDX-License-Identifier: MIT OR Apache-2.0

//! A scenario: what its file says at the top, and what its run reported.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use super::machine::Dom0;

/// A file of `tests/lab/scenarios`.
#[derive(Debug)]
pub struct Scenario {
    /// The file's name.
    pub name: String,
    /// `# limit:`: how many seconds it may run once Dom0 is ready.
    pub limit: u64,
    /// `# dom0:`: how Dom0 runs.
    pub dom0: Dom0,
    /// `# reports:`: the names of its checks, in any number of lines, with braces as in bash. Each has to come, once.
    pub reports: Vec<String>,
    /// `# debug-kernel: yes`: on the debug kernel it runs when nobody says what else should.
    pub debug_kernel: bool,
    /// `# tolerates:`: texts that excuse a line of a log that looks like an oops.
    pub tolerates: Vec<String>,
}

impl Scenario {
    /// All there are, by name.
    ///
    /// # Errors
    ///
    /// When a header is wrong.
    pub fn all(folder: &Path) -> Result<Vec<Self>> {
        let mut files = Vec::new();
        for entry in folder.read_dir().with_context(|| format!("no {}", folder.display()))? {
            let path: PathBuf = entry?.path();
            if path.extension().is_some_and(|extension| extension == "sh") {
                files.push(path);
            }
        }
        files.sort();
        files
            .iter()
            .map(|path| {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                Self::parse(&name, &std::fs::read_to_string(path)?)
                    .with_context(|| format!("{}: the header", path.display()))
            })
            .collect()
    }

    /// Those of `all` whose name begins with `filter`; if there are none, those with a check whose name does.
    ///
    /// # Errors
    ///
    /// When there is no such check, either.
    pub fn choose(all: Vec<Self>, filter: &str) -> Result<Vec<Self>> {
        let named = |scenario: &Self| scenario.name.starts_with(filter);
        let reports = |scenario: &Self| scenario.reports.iter().any(|it| it.starts_with(filter));
        let any_named = all.iter().any(named);
        let chosen: Vec<_> = all
            .into_iter()
            .filter(|scenario| if any_named { named(scenario) } else { reports(scenario) })
            .collect();
        ensure!(!chosen.is_empty(), "no scenario and no check begins with `{filter}`");
        Ok(chosen)
    }

    fn parse(name: &str, text: &str) -> Result<Self> {
        let mut scenario = Self {
            name: name.to_owned(),
            limit: 120,
            dom0: Dom0::Pv,
            reports: Vec::new(),
            debug_kernel: false,
            tolerates: Vec::new(),
        };
        for line in text.lines().take_while(|line| line.starts_with('#')) {
            let line = line.trim_start_matches(['#', ' ']);
            if let Some(value) = line.strip_prefix("limit:") {
                scenario.limit = value.trim().parse().context("limit: a number of seconds")?;
            } else if let Some(value) = line.strip_prefix("dom0:") {
                scenario.dom0 = Dom0::from_str(value.trim(), true).map_err(anyhow::Error::msg)?;
            } else if let Some(value) = line.strip_prefix("reports:") {
                scenario.reports.extend(value.split_whitespace().flat_map(expand));
            } else if let Some(value) = line.strip_prefix("debug-kernel:") {
                ensure!(value.trim() == "yes", "debug-kernel: yes, or not there");
                scenario.debug_kernel = true;
            } else if let Some(value) = line.strip_prefix("tolerates:") {
                scenario.tolerates.push(value.trim().to_owned());
            }
        }
        ensure!(!scenario.reports.is_empty(), "`# reports:` names no check");
        if let Some(other) = scenario.reports.iter().find(|check| !check.starts_with(name)) {
            bail!("the check {other} does not begin with the scenario's name");
        }
        Ok(scenario)
    }

    /// What a run comes to: each check that the header names, with the reason if it failed, in that order; then what
    /// failed beyond them. `serial` is what the first serial port printed, `report` the second.
    pub fn judge(&self, serial: &str, report: &str, ended: &str) -> Vec<(String, Option<String>)> {
        let mut found: BTreeMap<&str, Option<String>> = BTreeMap::new();
        let mut more = Vec::new();
        let results = report.split("\n== ").next().unwrap_or_default();
        for line in results.lines() {
            let (name, why) = match line.split_once(' ') {
                Some(("PASS", name)) => (name, None),
                Some(("FAIL", rest)) => {
                    let (name, why) = rest.split_once(':').unwrap_or((rest, ""));
                    (name, Some(why.trim().to_owned()))
                }
                Some(("ENDED", "124" | "137")) => {
                    more.push(format!("not done within {} s", self.limit));
                    continue;
                }
                Some(("ENDED", code)) => {
                    more.push(format!("the script ended with {code}"));
                    continue;
                }
                _ => continue,
            };
            if !self.reports.iter().any(|report| report == name) {
                more.push(format!("reported {name}, which its header does not name"));
            } else if found.insert(name, why).is_some() {
                more.push(format!("reported {name} twice"));
            }
        }
        if !report.lines().any(|line| line == "== end") {
            more.push(format!("the machine ended before its report did: {ended}"));
        }
        let mut log = serial.lines().chain(report.lines());
        while let Some(line) = log.next() {
            if !is_oops(line) || self.tolerates.iter().any(|text| line.contains(text.as_str())) {
                continue;
            }
            if is_linux(line, log.clone()) {
                log.by_ref().take(REPORT).find(|line| line.contains("</TASK>"));
                continue;
            }
            more.push(format!("a log says: {}", line.trim()));
            break;
        }
        let missing = || Some("not reported".to_owned());
        let checks = self.reports.iter();
        let mut all: Vec<_> = checks
            .map(|name| (name.clone(), found.remove(name.as_str()).unwrap_or_else(missing)))
            .collect();
        if !more.is_empty() {
            all.push((self.name.clone(), Some(more.join("; "))));
        }
        all
    }
}

/// Most lines of a kernel's report.
const REPORT: usize = 100;

/// Whether the report is about `gnttab_unmap_refs_sync` of Linux, which has a work item on its stack and does not say so.
fn is_linux<'a>(line: &str, lines: impl Iterator<Item = &'a str>) -> bool {
    let mut report = lines.take(REPORT).take_while(|line| !line.contains("</TASK>"));
    ["ODEBUG: ", "lib/debugobjects.c"].iter().any(|sign| line.contains(sign))
        && report.any(|line| line.contains("gnttab_unmap_refs_sync"))
}

/// A line that a healthy machine does not print.
fn is_oops(line: &str) -> bool {
    const SIGNS: &[&str] = &[
        "BUG:",
        "Oops",
        "WARNING:",
        "Call Trace",
        "Kernel panic",
        "kernel BUG at",
        "general protection fault",
        "INFO: task ",
        "RIP: 0010",
        "Xen BUG at",
        "Xen call trace",
        "Assertion '",
        "KASAN",
        "UBSAN",
        "suspected memory leaks",
        "trying to register non-static key",
        "lock held when returning to user space",
        "Poison overwritten",
        "Redzone overwritten",
        "Object already free",
        "rcu: INFO",
        "Bad page state",
        "list_add corruption",
        "list_del corruption",
        "rust_kernel: panicked",
    ];
    SIGNS.iter().any(|sign| line.contains(sign))
}

/// The words that a word with braces stands for: `a-{b,c}` for `a-b` and `a-c`.
fn expand(word: &str) -> Vec<String> {
    let Some((before, rest)) = word.split_once('{') else { return vec![word.to_owned()] };
    let Some((choices, after)) = rest.split_once('}') else { return vec![word.to_owned()] };
    let after = expand(after);
    let all = choices
        .split(',')
        .flat_map(|choice| after.iter().map(move |after| format!("{before}{choice}{after}")));
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::Scenario;

    fn scenario() -> Scenario {
        let text = "# limit: 30\n# reports: block-a block-b\n\ncheck block-a true\n";
        Scenario::parse("block", text).unwrap()
    }

    fn failures(serial: &str, report: &str) -> Vec<String> {
        let judged = scenario().judge(serial, report, "exit 0");
        judged.into_iter().filter_map(|(name, why)| Some(format!("{name}: {}", why?))).collect()
    }

    #[test]
    fn a_whole_report_passes() {
        assert_eq!(failures("", "PASS block-a\nPASS block-b\n== end\n"), [""; 0]);
    }

    #[test]
    fn a_missing_line_fails() {
        assert_eq!(failures("", "PASS block-a\n== end\n"), ["block-b: not reported"]);
    }

    #[test]
    fn a_machine_that_dies_fails_what_is_missing_and_itself() {
        let found = failures("", "PASS block-a\n");
        assert_eq!(found[0], "block-b: not reported");
        assert!(found[1].starts_with("block: the machine ended before"), "{found:?}");
    }

    #[test]
    fn an_oops_anywhere_fails() {
        let whole = "PASS block-a\nPASS block-b\n== console d1\n[1.0] BUG: bad thing\n== end\n";
        assert_eq!(failures("", whole), ["block: a log says: [1.0] BUG: bad thing"]);
        let whole = "PASS block-a\nPASS block-b\n== end\n";
        assert_eq!(failures("(XEN) Xen BUG at x", whole).len(), 1);
    }

    #[test]
    fn a_work_item_on_the_stack_of_linux_is_not_ours() {
        let log = |function| {
            format!(
                "PASS block-a\nPASS block-b\n== dom0 dmesg\n[1.0] ODEBUG: object 1 is on stack 2, but NOT annotated.\n\
                 [1.0] WARNING: lib/debugobjects.c:672 at it\n\
                 [1.0] RIP: 0010:it\n[1.0] Call Trace:\n[1.0]  {function}+0x71/0x140\n[1.0]  </TASK>\n== end\n"
            )
        };
        assert_eq!(failures("", &log("gnttab_unmap_refs_sync")), [""; 0]);
        assert_eq!(failures("", &log("unmap_of_ours")).len(), 1);
        let more = log("gnttab_unmap_refs_sync").replace("</TASK>", "</TASK>\n[2.0] KASAN");
        assert_eq!(failures("", &more), ["block: a log says: [2.0] KASAN"]);
    }

    #[test]
    fn unknown_double_and_late_results_fail() {
        let report =
            "PASS block-a\nPASS block-a\nPASS block-c\nENDED 124\n== log\nPASS block-b\n== end\n";
        let found = failures("", report);
        assert_eq!(found[0], "block-b: not reported");
        for part in ["block-a twice", "block-c, which", "not done within 30 s"] {
            assert!(found[1].contains(part), "{found:?}");
        }
    }

    /// `set -e` overlooks what fails on the left of `&&`, and what `!` turns round, unless the function ends there.
    fn overlooked(text: &str) -> Vec<&str> {
        let lines: Vec<_> = text.lines().collect();
        let hides = |line: &str| {
            let alone = line.contains(" && ") && !line.contains("||");
            line.starts_with("! ") || (line.starts_with("[ ") && alone)
        };
        let last = |next: Option<&&str>| next.is_none_or(|next| next.trim() == "}");
        let each = lines.iter().enumerate();
        each.filter(|(at, line)| hides(line.trim_start()) && !last(lines.get(at + 1)))
            .map(|(_, line)| *line)
            .collect()
    }

    #[test]
    fn no_check_overlooks_a_failure() {
        let folder = crate::command::workspace().join("tests/lab");
        for folder in ["scenarios", "dom0/library", "bench"].map(|name| folder.join(name)) {
            for file in folder.read_dir().unwrap() {
                let text = std::fs::read_to_string(file.as_ref().unwrap().path()).unwrap();
                let found: Vec<_> = overlooked(&text);
                assert!(found.is_empty(), "{}: {found:?}", file.unwrap().path().display());
            }
        }
        assert_eq!(overlooked("f() {\n    ! a\n    b\n}\n"), ["    ! a"]);
        assert_eq!(overlooked("f() {\n    [ a ] && [ b ]\n    c\n}\n"), ["    [ a ] && [ b ]"]);
        assert_eq!(overlooked("f() {\n    [ a ] && [ b ] || fail c\n    ! d\n}\n"), [""; 0]);
    }

    #[test]
    fn every_check_that_the_guide_names_is_there() {
        const BEGINNINGS: [&str; 5] =
            ["module-blk", "module-pvh", "module-selftest", "block-uring", "block-matrix"];
        let workspace = crate::command::workspace();
        let scenarios = Scenario::all(&workspace.join("tests/lab/scenarios")).unwrap();
        let is_there = |name: &str| {
            let mut reports = scenarios.iter().flat_map(|scenario| &scenario.reports);
            reports.any(|report| report == name)
                || scenarios.iter().any(|scenario| scenario.name == name)
        };
        let mut named = 0;
        for page in workspace.join("docs/src").read_dir().unwrap() {
            let page = page.unwrap().path();
            let text = std::fs::read_to_string(&page).unwrap();
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            for word in words.filter(|word| BEGINNINGS.iter().any(|it| word.starts_with(it))) {
                assert!(is_there(word), "{}: there is no check {word}", page.display());
                named += 1;
            }
        }
        assert!(named > 10, "the guide names {named} checks");
    }

    #[test]
    fn a_scenario_is_chosen_by_its_name_or_by_a_check() {
        let chosen = |filter: &str| {
            let all = [
                ("module-blkback", "attach in-flight detach"),
                ("module-blkback-hostile", "attach"),
                ("module-blkfront", "attach in-order"),
            ]
            .map(|(name, checks)| {
                let reports = checks.replace(' ', &format!(" {name}-"));
                Scenario::parse(name, &format!("# reports: {name}-{reports}\n")).unwrap()
            });
            let chosen = Scenario::choose(all.into(), filter).map_err(|why| why.to_string())?;
            Ok::<_, String>(Vec::from_iter(chosen.into_iter().map(|scenario| scenario.name)))
        };
        // As before there were checks to choose by.
        assert_eq!(chosen("module-blkback").unwrap(), ["module-blkback", "module-blkback-hostile"]);
        assert_eq!(chosen("module-blkback-h").unwrap(), ["module-blkback-hostile"]);
        assert_eq!(chosen("module-").unwrap().len(), 3);
        // By a check, by its beginning, and not by one that only has it somewhere.
        assert_eq!(chosen("module-blkback-attach").unwrap(), ["module-blkback"]);
        assert_eq!(chosen("module-blkback-hostile-at").unwrap(), ["module-blkback-hostile"]);
        assert_eq!(chosen("module-blkfront-in-").unwrap(), ["module-blkfront"]);
        assert!(chosen("attach").unwrap_err().contains("begins with `attach`"));
    }

    #[test]
    fn headers_are_checked() {
        assert!(Scenario::parse("block", "# limit: 3\n").is_err());
        assert!(Scenario::parse("block", "# reports: net-a\n").is_err());
        assert!(Scenario::parse("block", "# reports: block-a\n# dom0: hvm\n").is_err());
    }
}
