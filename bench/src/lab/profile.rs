// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the instructions of a run were executed, by symbol, two pairs of drivers side by side.
//!
//! The plugin's `profile` file has a segment for each run, of lines `PART ADDRESS INSTRUCTIONS ENTRIES`. The machine
//! wrote the symbols it had: a line `== xen` and Xen's, `== kernel` and the stock kernel's (Dom0 and guests boot the
//! same one, and a kernel that Xen starts is not moved), and for each run `== RUN dom0` and `== RUN guest` with those
//! of the modules, which move.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};

use super::counts::Run;

/// Symbols by address.
#[derive(Clone, Debug, Default)]
pub struct Symbols(Vec<(u64, String)>);

impl Symbols {
    /// Reads lines as of `/proc/kallsyms`: address, kind, name, and the module in brackets. Data is left out.
    fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let symbols = lines.filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let kind = words.next()?;
            // Xen's names have their source file before a `#`.
            let name = words.next()?.rsplit('#').next()?;
            let module = words.next().unwrap_or_default();
            matches!(kind, "t" | "T" | "w" | "W").then(|| (address, format!("{name}{module}")))
        });
        let mut symbols: Vec<_> = symbols.collect();
        symbols.sort();
        Self(symbols)
    }

    /// The symbol that an address is in, or the one before it.
    fn find(&self, address: u64) -> Option<&(u64, String)> {
        self.0[..self.0.partition_point(|symbol| symbol.0 <= address)].last()
    }
}

/// All symbols of a machine.
#[derive(Debug, Default)]
pub struct SymbolFile(BTreeMap<String, Symbols>);

impl SymbolFile {
    /// Reads the sections of a file.
    pub fn parse(text: &str) -> Self {
        let mut sections: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let mut section = None;
        for line in text.lines() {
            match line.strip_prefix("== ") {
                Some(name) => section = Some(sections.entry(name.trim().to_owned()).or_default()),
                None => section.iter_mut().for_each(|section| section.push(line)),
            }
        }
        let parsed =
            sections.into_iter().map(|(name, lines)| (name, Symbols::parse(lines.into_iter())));
        Self(parsed.collect())
    }

    /// Those of one run: the kernel's and its modules'.
    fn of_run(&self, run: usize, part: &str) -> Symbols {
        let mut symbols = self.0.get("kernel").cloned().unwrap_or_default();
        if let Some(modules) = self.0.get(&format!("{run} {part}")) {
            symbols.0.extend(modules.0.iter().cloned());
            symbols.0.sort();
        }
        symbols
    }
}

/// Instructions per request, by part of the machine and symbol.
pub type Profile = BTreeMap<(&'static str, String), f64>;

/// The profile of the run number `run`, from 0.
///
/// # Errors
///
/// When the file has no such run, or is broken.
pub fn of_run(text: &str, run: usize, requests: f64, symbols: &SymbolFile) -> Result<Profile> {
    let segment = text.split("end\n").nth(run).filter(|segment| !segment.is_empty());
    let segment = segment.with_context(|| format!("no profile of run {run}"))?;
    let none = Symbols::default();
    let xen = symbols.0.get("xen").unwrap_or(&none);
    let (dom0, guest) = (symbols.of_run(run, "dom0"), symbols.of_run(run, "guest"));
    let mut profile = Profile::new();
    for line in segment.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [part, address, instructions, _entries] = words[..] else {
            anyhow::bail!("a broken line of the profile: {line}")
        };
        let address = u64::from_str_radix(address, 16)?;
        let (part, symbols) = match part {
            "x" => ("Xen", xen),
            "0" => ("Dom0", &dom0),
            _ => ("guest", &guest),
        };
        let name = if part != "Xen" && address >> 63 == 0 {
            "(programs)".to_owned()
        } else {
            symbols.find(address).map_or_else(|| "?".to_owned(), |symbol| symbol.1.clone())
        };
        *profile.entry((part, name)).or_default() += instructions.parse::<f64>()? / requests;
    }
    Ok(profile)
}

/// Two profiles beside each other, for each part the `top` symbols with the largest share of either.
pub fn side_by_side(names: [&str; 2], profiles: [&Profile; 2], top: usize) -> String {
    let mut text = String::new();
    let of = |profile: &Profile, key: &(&'static str, String)| {
        profile.get(key).copied().unwrap_or_default()
    };
    for part in ["Xen", "Dom0", "guest"] {
        let mut rows: Vec<_> = profiles
            .iter()
            .flat_map(|profile| profile.keys())
            .filter(|key| key.0 == part)
            .map(|key| (of(profiles[0], key), of(profiles[1], key), key.1.as_str()))
            .collect();
        rows.sort_by(|a, b| b.0.max(b.1).total_cmp(&a.0.max(a.1)).then(a.2.cmp(b.2)));
        rows.dedup();
        let sum = |which: fn(&(f64, f64, &str)) -> f64| rows.iter().map(which).sum::<f64>();
        let _ = writeln!(text, "{:>12} {:>12} {:>10}  {part}", names[0], names[1], "difference");
        let all = (sum(|row| row.0), sum(|row| row.1), "(all)");
        for (left, right, name) in std::iter::once(&all).chain(rows.iter().take(top)) {
            let _ = writeln!(text, "{left:>12.0} {right:>12.0} {:>10.0}  {name}", left - right);
        }
        text.push('\n');
    }
    text
}

/// The profiles of one cell with two pairs of drivers (`FRONT/BACK`), from the last run of each: the warmest.
///
/// # Errors
///
/// When there was no such run.
pub fn compare(
    runs: &[Run],
    profile: &str,
    symbols: &str,
    cell: &str,
    ends: [&str; 2],
    top: usize,
) -> Result<String> {
    let symbols = SymbolFile::parse(symbols);
    let mut profiles = Vec::new();
    for ends in ends {
        let is_it = |run: &&Run| run.cell == cell && format!("{}/{}", run.front, run.back) == ends;
        let number = runs.iter().rposition(|run| is_it(&run));
        let number = number.with_context(|| format!("no run of {cell} with {ends}"))?;
        profiles.push(of_run(profile, number, runs[number].requests, &symbols)?);
    }
    ensure!(profiles.len() == 2, "two profiles are compared");
    Ok(side_by_side(ends, [&profiles[0], &profiles[1]], top))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: &str = "== xen\nffff82d040200000 T arch/x86/traps.c#do_trap\n== kernel\n\
        ffffffff81000000 T startup\nffffffff81000100 d data\n== 1 dom0\nffffffffc0000000 t read\t[loop]\n";

    #[test]
    fn instructions_go_to_the_symbol_before_their_address() {
        let profile = "x ffff82d040200010 10 1\nend\nx ffff82d040200010 40 1\n0 ffffffff81000104 20 1\n\
            0 ffffffffc0000004 60 2\ng 401000 100 1\nend\n";
        let found = of_run(profile, 1, 10.0, &SymbolFile::parse(SYMBOLS)).unwrap();
        let lines: Vec<_> =
            found.iter().map(|((part, name), n)| format!("{part} {name} {n}")).collect();
        assert_eq!(
            lines,
            ["Dom0 read[loop] 6", "Dom0 startup 2", "Xen do_trap 4", "guest (programs) 10"]
        );
        assert!(of_run(profile, 2, 1.0, &SymbolFile::default()).is_err());
    }

    #[test]
    fn both_sides_are_shown_where_either_is_large() {
        let ours = Profile::from([(("Xen", "a".to_owned()), 5.0)]);
        let stock = Profile::from([(("Xen", "a".to_owned()), 1.0), (("Xen", "b".to_owned()), 9.0)]);
        let text = side_by_side(["ours", "stock"], [&ours, &stock], 5);
        let rows: Vec<Vec<_>> =
            text.lines().take(4).map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["5", "10", "-5", "(all)"]);
        assert_eq!(rows[2], ["0", "9", "-9", "b"]);
        assert_eq!(rows[3], ["5", "1", "4", "a"]);
    }
}
