//! What was measured, as tables for people and as JSON.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::contestant::{Contestant, Role, Verb};
use crate::measure::{Results, Sample};
use crate::stats::{median, minimum, paired_ratio, percentile};
use crate::target::{self, Targets, Verdict, Yardstick};

/// One bundle's results.
pub struct BundleReport {
    /// The name of the bundle.
    pub name: String,
    /// What it is.
    pub about: String,
    /// What is asked of the subject with it.
    pub targets: &'static Targets,
    /// Who was compared.
    pub contestants: Vec<Contestant>,
    /// What was measured of each of them.
    pub results: Vec<Results>,
}

fn walls(samples: &[Option<Sample>]) -> Vec<Option<f64>> {
    samples.iter().map(|sample| sample.map(|s| s.wall_ms)).collect()
}

fn present(samples: &[Option<f64>]) -> Vec<f64> {
    samples.iter().flatten().copied().collect()
}

/// Those that others are compared with: the plain floor and the peers.
fn is_yardstick(contestant: &Contestant) -> bool {
    match &contestant.role {
        Role::Floor(_) => contestant.name == Yardstick::Floor.name(),
        Role::Peer => true,
        Role::Subject => false,
    }
}

/// The ratio of `own` to the contestant called `other`.
fn ratio(report: &BundleReport, verb: Verb, own: &Results, other: &str) -> Option<f64> {
    let other = report.contestants.iter().position(|c| c.name == other)?;
    paired_ratio(&walls(own.of(verb)), &walls(report.results.get(other)?.of(verb)))
}

/// The verdicts on one subject, with the limit of each.
fn verdicts(report: &BundleReport, own: &Results) -> Vec<(Verdict, f64)> {
    let mut all = Vec::new();
    for target in report.targets.times {
        let against = target.yardstick.name();
        if let Some(value) = ratio(report, target.verb, own, against) {
            let text = format!("{} at most {:.2} x {against}", target.verb.name(), target.at_most);
            all.push((Verdict::at_most(text, value, target.at_most), target.at_most));
        }
    }
    if !report.targets.sizes {
        return all;
    }
    if let Some(value) = median(&own.syscalls) {
        let text = format!("run at most {} system calls", target::SYSCALLS_AT_MOST);
        all.push((Verdict::at_most(text, value, target::SYSCALLS_AT_MOST), target::SYSCALLS_AT_MOST));
    }
    if let Some(value) = median(&own.run_peak_kib) {
        let text = format!("run peak memory below {} KiB", target::RUN_PEAK_BELOW_KIB);
        all.push((Verdict::below(text, value, target::RUN_PEAK_BELOW_KIB), target::RUN_PEAK_BELOW_KIB));
    }
    if let Some(value) = median(&own.waiting_rss_kib) {
        let text = format!("waiting process below {} KiB", target::WAITING_BELOW_KIB);
        all.push((Verdict::below(text, value, target::WAITING_BELOW_KIB), target::WAITING_BELOW_KIB));
    }
    all
}

/// The tables of one bundle.
pub fn table(report: &BundleReport) -> String {
    let mut out = format!("\nbundle {}: {}\n", report.name, report.about);
    for verb in Verb::ALL {
        time_table(&mut out, report, verb);
    }
    size_table(&mut out, report);
    for (contestant, result) in report.contestants.iter().zip(&report.results) {
        let verdicts = verdicts(report, result);
        if contestant.role == Role::Subject && !verdicts.is_empty() {
            target_table(&mut out, contestant, &verdicts);
        }
    }
    for (contestant, result) in report.contestants.iter().zip(&report.results) {
        for failure in &result.failures {
            let _ = writeln!(out, "FAILED {}: {failure}", contestant.name);
        }
    }
    out
}

/// One command of all who can do it.
fn time_table(out: &mut String, report: &BundleReport, verb: Verb) {
    let rows: Vec<(&Contestant, &Results, Vec<f64>)> = report
        .contestants
        .iter()
        .zip(&report.results)
        .map(|(contestant, result)| (contestant, result, present(&walls(result.of(verb)))))
        .filter(|(_, _, samples)| !samples.is_empty())
        .collect();
    let Some(rounds) = rows.iter().map(|(_, _, samples)| samples.len()).max() else {
        return;
    };
    let compared: Vec<&str> =
        rows.iter().filter(|(c, _, _)| is_yardstick(c)).map(|(c, _, _)| c.name.as_str()).collect();
    let title = format!("{} ({rounds} rounds, ms)", verb.name());
    let mut head = vec![title, "min".into(), "median".into(), "p99".into(), "cpu".into()];
    head.extend(compared.iter().map(|name| format!("x {name}")));
    let mut lines = vec![head];
    for (contestant, result, samples) in &rows {
        let cpu: Vec<f64> = result.of(verb).iter().flatten().map(|s| s.cpu_ms).collect();
        let mut line = vec![contestant.name.clone()];
        line.extend(
            [minimum(samples), median(samples), percentile(samples, 99.0), median(&cpu)]
                .map(|value| number(value, 2)),
        );
        line.extend(compared.iter().map(|name| number(ratio(report, verb, result, name), 2)));
        lines.push(line);
    }
    out.push('\n');
    align(out, &lines);
}

/// Memory and system calls.
fn size_table(out: &mut String, report: &BundleReport) {
    let head = ["sizes", "run peak KiB", "waiting RSS KiB", "waiting PSS KiB", "syscalls a run"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for (contestant, result) in report.contestants.iter().zip(&report.results) {
        let mut line = vec![contestant.name.clone()];
        line.extend(
            [&result.run_peak_kib, &result.waiting_rss_kib, &result.waiting_pss_kib, &result.syscalls]
                .map(|samples| number(median(samples), 0)),
        );
        lines.push(line);
    }
    out.push('\n');
    align(out, &lines);
}

/// The targets, each with what was measured and whether it is met.
fn target_table(out: &mut String, contestant: &Contestant, verdicts: &[(Verdict, f64)]) {
    let mut lines = vec![vec![format!("targets, {}", contestant.name), "measured".into(), String::new()]];
    for (verdict, limit) in verdicts {
        let digits = if *limit < 10.0 { 2 } else { 0 };
        lines.push(vec![verdict.text.clone(), number(Some(verdict.value), digits), verdict.word(*limit)]);
    }
    out.push('\n');
    align(out, &lines);
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"))
}

/// Wide enough for every title, so that the tables of all commands line up.
const FIRST_COLUMN: usize = 36;

/// Writes lines with the first column to the left, the others to the right.
fn align(out: &mut String, lines: &[Vec<String>]) {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let longest = lines.iter().filter_map(|l| l.get(column)).map(String::len).max().unwrap_or(0);
            if column == 0 { longest.max(FIRST_COLUMN) } else { longest.max(8) }
        })
        .collect();
    for line in lines {
        let mut text = String::new();
        for (column, cell) in line.iter().enumerate() {
            let width = widths.get(column).copied().unwrap_or(0);
            let _ =
                if column == 0 { write!(text, "{cell:<width$}") } else { write!(text, "  {cell:>width$}") };
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
}

/// The same as JSON: times in milliseconds, memory in KiB.
pub fn json(reports: &[BundleReport]) -> Value {
    json!({"bundles": reports.iter().map(bundle_json).collect::<Vec<_>>()})
}

fn contestant_json(contestant: &Contestant) -> Value {
    let role = match &contestant.role {
        Role::Floor(_) => "floor",
        Role::Subject => "subject",
        Role::Peer => "peer",
    };
    json!({
        "name": contestant.name,
        "role": role,
        "path": contestant.program.to_string_lossy(),
        "version": contestant.version,
    })
}

fn bundle_json(report: &BundleReport) -> Value {
    let contestants = &report.contestants;
    let mut all = Map::new();
    for (contestant, result) in contestants.iter().zip(&report.results) {
        let mut own = Map::new();
        for verb in Verb::ALL {
            let samples = present(&walls(result.of(verb)));
            if samples.is_empty() {
                continue;
            }
            let cpu: Vec<f64> = result.of(verb).iter().flatten().map(|s| s.cpu_ms).collect();
            let ratios: Map<String, Value> = contestants
                .iter()
                .filter(|c| is_yardstick(c))
                .filter_map(|c| Some((c.name.clone(), json!(ratio(report, verb, result, &c.name)?))))
                .collect();
            own.insert(
                verb.name().to_owned(),
                json!({
                    "rounds": samples.len(),
                    "min_ms": minimum(&samples),
                    "median_ms": median(&samples),
                    "p99_ms": percentile(&samples, 99.0),
                    "cpu_median_ms": median(&cpu),
                    "median_ratio_to": ratios,
                }),
            );
        }
        own.insert("run_peak_kib".to_owned(), json!(median(&result.run_peak_kib)));
        own.insert("waiting_rss_kib".to_owned(), json!(median(&result.waiting_rss_kib)));
        own.insert("waiting_pss_kib".to_owned(), json!(median(&result.waiting_pss_kib)));
        own.insert("syscalls".to_owned(), json!(median(&result.syscalls)));
        if contestant.role == Role::Subject {
            let verdicts: Vec<Value> = verdicts(report, result)
                .into_iter()
                .map(|(v, limit)| json!({"target": v.text, "value": v.value, "limit": limit, "met": v.met}))
                .collect();
            own.insert("targets".to_owned(), json!(verdicts));
        }
        own.insert("failures".to_owned(), json!(result.failures));
        all.insert(contestant.name.clone(), Value::Object(own));
    }
    json!({
        "name": report.name,
        "about": report.about,
        "contestants": contestants.iter().map(contestant_json).collect::<Vec<_>>(),
        "results": all,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut out = String::new();
        let line = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        align(&mut out, &[line(["a", "1.00", "22"]), line(["long", "10.00", ""])]);
        let rows: Vec<&str> = out.lines().collect();
        assert_eq!(rows, [format!("{:<36}      1.00        22", "a"), format!("{:<36}     10.00", "long")]);
    }
}
