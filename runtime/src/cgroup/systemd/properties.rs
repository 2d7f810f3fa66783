//! `linux.resources` as properties of a unit.
//!
//! Pure. The same limits are written to the cgroup's files, so systemd must know them: a
//! `daemon-reload` writes the unit's properties again, and takes away what it does not know.
//! Source: systemd.resource-control(5), org.freedesktop.systemd1(5).

use std::borrow::Cow;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxResources};
use serde::Serialize;
use zvariant::Value;

use crate::cgroup::devices::{Access, DeviceKind, DeviceRule};
use crate::cgroup::layout::LayoutKind;
use crate::cgroup::{v1, v2};
use crate::error::{Error, Result};

/// One property of a unit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Property {
    /// Its D-Bus name.
    pub name: String,
    /// Its value.
    pub value: PropertyValue,
}

impl Property {
    /// A property.
    pub fn new(name: impl Into<String>, value: PropertyValue) -> Property {
        Property { name: name.into(), value }
    }

    /// Name and value as D-Bus wants them.
    pub fn encode(&self) -> (&str, Value<'_>) {
        let value = match &self.value {
            PropertyValue::Bool(value) => Value::from(*value),
            PropertyValue::I32(value) => Value::from(*value),
            PropertyValue::U32(value) => Value::from(*value),
            PropertyValue::I64(value) => Value::from(*value),
            PropertyValue::U64(value) => Value::from(*value),
            PropertyValue::F64(value) => Value::from(*value),
            PropertyValue::Text(value) => Value::from(value.as_str()),
            PropertyValue::Texts(value) => Value::from(value.clone()),
            PropertyValue::Numbers(value) => Value::from(value.clone()),
            PropertyValue::Bytes(value) => Value::from(value.clone()),
            PropertyValue::Devices(value) => Value::from(value.clone()),
            PropertyValue::DeviceNumbers(value) => Value::from(value.clone()),
        };
        (&self.name, value)
    }
}

/// The types that properties of a scope have.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum PropertyValue {
    /// `b`
    Bool(bool),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    F64(f64),
    /// `s`
    Text(String),
    /// `as`
    Texts(Vec<String>),
    /// `au`
    Numbers(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
    /// `a(ss)`
    Devices(Vec<(String, String)>),
    /// `a(st)`
    DeviceNumbers(Vec<(String, u64)>),
}

/// systemd's "no limit".
const INFINITY: u64 = u64::MAX;

/// The properties of every field that systemd has one for.
pub fn of_resources(resources: &LinuxResources, layout: LayoutKind) -> Result<Vec<Property>> {
    let mut properties = Vec::new();
    let mut number = |name: &str, value: u64| properties.push(Property::new(name, PropertyValue::U64(value)));
    let v2 = layout == LayoutKind::V2;
    if let Some(memory) = resources.memory() {
        let unlimited_or = |value: i64| u64::try_from(value).unwrap_or(INFINITY);
        if let Some(limit) = memory.limit().filter(|&limit| limit != 0) {
            number(if v2 { "MemoryMax" } else { "MemoryLimit" }, unlimited_or(limit));
        }
        if let Some(low) = memory.reservation().filter(|&low| low != 0 && v2) {
            number("MemoryLow", unlimited_or(low));
        }
        if let Some(swap) = v1::effective_swap(memory).filter(|_| v2) {
            let limit = memory.limit().unwrap_or(0);
            number(
                "MemorySwapMax",
                if swap < 0 { INFINITY } else { unlimited_or(swap.saturating_sub(limit)) },
            );
        }
    }
    if let Some(pids) = resources.pids() {
        // As the file: see `v1::pids_max`.
        let limit = u64::try_from(pids.limit()).unwrap_or(INFINITY);
        number("TasksMax", limit.max(1));
    }
    if let Some(cpu) = resources.cpu() {
        properties.extend(of_cpu(cpu, v2::is_idle(resources), v2)?);
    }
    if let Some(block_io) = resources.block_io().as_ref().filter(|_| v2) {
        properties.extend(of_block_io(block_io));
    }
    if v2 {
        properties.extend(of_unified(resources)?);
    }
    Ok(properties)
}

fn of_cpu(cpu: &LinuxCpu, is_idle: bool, v2: bool) -> Result<Vec<Property>> {
    let mut properties = Vec::new();
    let mut number = |name: &str, value: u64| properties.push(Property::new(name, PropertyValue::U64(value)));
    if let Some(shares) = cpu.shares().filter(|&shares| shares != 0 && !is_idle) {
        if v2 {
            number("CPUWeight", v2::shares_to_weight(shares));
        } else {
            number("CPUShares", shares);
        }
    }
    // Weight 0 is how systemd (252 and later) says idle. `unified` speaks for itself.
    if cpu.idle() == Some(1) && is_idle && v2 {
        number("CPUWeight", 0);
    }
    let period = cpu.period().filter(|&period| period != 0);
    if let Some(period) = period {
        number("CPUQuotaPeriodUSec", period);
    }
    if let Some(quota) = cpu.quota().filter(|&quota| quota != 0) {
        number("CPUQuotaPerSecUSec", quota_per_second(quota, period.unwrap_or(USUAL_PERIOD)));
    }
    for (name, field, list) in
        [("AllowedCPUs", "cpus", cpu.cpus()), ("AllowedMemoryNodes", "mems", cpu.mems())]
    {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty() && v2) {
            let bits = bitmask(list).ok_or_else(|| {
                Error::config(
                    format!("linux.resources.cpu.{field}"),
                    format!("{list:?} is not a list such as 0-3,7"),
                )
            })?;
            properties.push(Property::new(name, PropertyValue::Bytes(bits)));
        }
    }
    Ok(properties)
}

/// The limits with the CPU quota as systemd keeps it: what it writes at a daemon-reload is then what holds already.
/// Both a quota and a period must be told for that; where none is, the period is the kernel's.
pub fn as_kept(resources: &LinuxResources) -> Cow<'_, LinuxResources> {
    let mut kept = Cow::Borrowed(resources);
    if let Some(cpu) = resources.cpu()
        && let Some(quota) = cpu.quota().filter(|quota| *quota > 0)
    {
        let period = cpu.period().filter(|&period| period != 0).unwrap_or(USUAL_PERIOD);
        let mut cpu = cpu.clone();
        cpu.set_quota(Some(kept_quota(quota, period)));
        kept.to_mut().set_cpu(Some(cpu));
    }
    if let Some(max) = resources.unified().as_ref().and_then(|unified| unified.get("cpu.max"))
        && let mut parts = max.split_whitespace()
        && let Some(quota) =
            parts.next().and_then(|quota| quota.parse::<i64>().ok()).filter(|quota| *quota > 0)
        && let Ok(period) = parts.next().map_or(Ok(USUAL_PERIOD), str::parse)
    {
        let max = format!("{} {period}", kept_quota(quota, period));
        if let Some(unified) = kept.to_mut().unified_mut() {
            unified.insert("cpu.max".to_owned(), max);
        }
    }
    kept
}

/// The kernel's, in microseconds.
const USUAL_PERIOD: u64 = 100_000;

fn kept_quota(quota: i64, period: u64) -> i64 {
    let kept = u128::from(quota_per_second(quota, period)) * u128::from(period) / 1_000_000;
    i64::try_from(kept).unwrap_or(quota)
}

/// systemd keeps a quota per second, in steps of 10 ms.
fn quota_per_second(quota: i64, period: u64) -> u64 {
    let Some(quota) = u64::try_from(quota).ok() else { return INFINITY };
    let exact = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
    u64::try_from(exact.div_ceil(10_000) * 10_000).unwrap_or(INFINITY)
}

/// A list such as `0-3,7` as bytes, the lowest bit of the first one being number 0.
fn bitmask(list: &str) -> Option<Vec<u8>> {
    const HIGHEST: usize = 65_535;
    let mut bytes = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > HIGHEST {
            return None;
        }
        for number in first..=last {
            if bytes.len() <= number / 8 {
                bytes.resize(number / 8 + 1, 0);
            }
            if let Some(byte) = bytes.get_mut(number / 8) {
                *byte |= 1 << (number % 8);
            }
        }
    }
    Some(bytes)
}

fn of_block_io(block_io: &LinuxBlockIo) -> Vec<Property> {
    let mut properties = Vec::new();
    if let Some(weight) = block_io.weight().filter(|&weight| weight != 0) {
        properties.push(Property::new("IOWeight", PropertyValue::U64(v2::blkio_to_io_weight(weight))));
    }
    let path = |major: i64, minor: i64| format!("/dev/block/{major}:{minor}");
    let weights: Vec<(String, u64)> = block_io
        .weight_device()
        .iter()
        .flatten()
        .filter_map(|device| {
            let weight = device.weight().filter(|&weight| weight != 0)?;
            Some((path(device.major(), device.minor()), v2::blkio_to_io_weight(weight)))
        })
        .collect();
    if !weights.is_empty() {
        properties.push(Property::new("IODeviceWeight", PropertyValue::DeviceNumbers(weights)));
    }
    let names = ["IOReadBandwidthMax", "IOWriteBandwidthMax", "IOReadIOPSMax", "IOWriteIOPSMax"];
    for (name, (_, _, devices)) in names.into_iter().zip(v1::throttles(block_io)) {
        let limits: Vec<(String, u64)> = devices
            .iter()
            .map(|device| {
                let rate = if device.rate() == 0 { INFINITY } else { device.rate() };
                (path(device.major(), device.minor()), rate)
            })
            .collect();
        if !limits.is_empty() {
            properties.push(Property::new(name, PropertyValue::DeviceNumbers(limits)));
        }
    }
    properties
}

/// The files of `unified` that a property stands for; the others live in the files alone.
fn of_unified(resources: &LinuxResources) -> Result<Vec<Property>> {
    let mut properties = Vec::new();
    let mut entries: Vec<_> = resources.unified().iter().flatten().collect();
    entries.sort();
    for (file, value) in entries {
        let value = value.trim();
        let wrong = || {
            Error::config(
                format!("linux.resources.unified[{file:?}]"),
                format!("{value:?} is no value of that file"),
            )
        };
        let limit = |value: &str| match value {
            "max" => Some(INFINITY),
            value => value.parse().ok(),
        };
        let name = match file.as_str() {
            "memory.max" => "MemoryMax",
            "memory.high" => "MemoryHigh",
            "memory.low" => "MemoryLow",
            "memory.min" => "MemoryMin",
            "memory.swap.max" => "MemorySwapMax",
            "memory.zswap.max" => "MemoryZSwapMax",
            "pids.max" => {
                let limit = limit(value).ok_or_else(wrong)?.max(1);
                properties.push(Property::new("TasksMax", PropertyValue::U64(limit)));
                continue;
            }
            "cpu.weight" if v2::is_idle(resources) => continue,
            "cpu.weight" => "CPUWeight",
            "io.weight" => {
                properties.extend(of_io_weight(value).ok_or_else(wrong)?);
                continue;
            }
            "io.max" => {
                properties.extend(of_io_max(value).ok_or_else(wrong)?);
                continue;
            }
            "cpu.max" => {
                let mut parts = value.split_whitespace();
                let quota = parts.next().and_then(limit).ok_or_else(wrong)?;
                let period = parts.next().map(|period| period.parse().map_err(|_| wrong())).transpose()?;
                if let Some(period) = period {
                    properties.push(Property::new("CPUQuotaPeriodUSec", PropertyValue::U64(period)));
                }
                let quota =
                    quota_per_second(i64::try_from(quota).unwrap_or(-1), period.unwrap_or(USUAL_PERIOD));
                properties.push(Property::new("CPUQuotaPerSecUSec", PropertyValue::U64(quota)));
                continue;
            }
            "cpuset.cpus" | "cpuset.mems" => {
                let name = if file.ends_with("cpus") { "AllowedCPUs" } else { "AllowedMemoryNodes" };
                // An empty list is the parent's.
                let bits = if value.is_empty() { Some(Vec::new()) } else { bitmask(value) };
                properties.push(Property::new(name, PropertyValue::Bytes(bits.ok_or_else(wrong)?)));
                continue;
            }
            "cpu.idle" if value == "1" => {
                properties.push(Property::new("CPUWeight", PropertyValue::U64(0)));
                continue;
            }
            _ => continue,
        };
        properties.push(Property::new(name, PropertyValue::U64(limit(value).ok_or_else(wrong)?)));
    }
    Ok(properties)
}

/// `OOMPolicy` of a unit that is to be started: later, systemd does not take it.
pub fn of_oom_group(resources: &LinuxResources) -> Option<Property> {
    let group = resources.unified().as_ref()?.get("memory.oom.group")?;
    let policy = match group.trim() {
        "0" => "continue",
        "1" => "kill",
        _ => return None,
    };
    Some(Property::new("OOMPolicy", PropertyValue::Text(policy.to_owned())))
}

/// `io.weight`: a line `default WEIGHT`, or the weight alone, and one for each device.
fn of_io_weight(value: &str) -> Option<Vec<Property>> {
    let mut properties = Vec::new();
    let mut devices = Vec::new();
    for line in value.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [] | [_, "default"] => {}
            [weight] | ["default", weight] => {
                properties.push(Property::new("IOWeight", PropertyValue::U64(weight.parse().ok()?)));
            }
            [device, weight] => devices.push((format!("/dev/block/{device}"), weight.parse().ok()?)),
            _ => return None,
        }
    }
    if !devices.is_empty() {
        properties.push(Property::new("IODeviceWeight", PropertyValue::DeviceNumbers(devices)));
    }
    Some(properties)
}

/// `io.max`: a line `MAJ:MIN KEY=VALUE…` for each device.
fn of_io_max(value: &str) -> Option<Vec<Property>> {
    const KEYS: [(&str, &str); 4] = [
        ("rbps", "IOReadBandwidthMax"),
        ("wbps", "IOWriteBandwidthMax"),
        ("riops", "IOReadIOPSMax"),
        ("wiops", "IOWriteIOPSMax"),
    ];
    let mut limits = KEYS.map(|(_, name)| (name, Vec::new()));
    for line in value.lines() {
        let mut words = line.split_whitespace();
        let Some(device) = words.next() else { continue };
        for word in words {
            let (key, rate) = word.split_once('=')?;
            let index = KEYS.iter().position(|(known, _)| *known == key)?;
            let rate = if rate == "max" { INFINITY } else { rate.parse().ok()? };
            limits.get_mut(index)?.1.push((format!("/dev/block/{device}"), rate));
        }
    }
    let told = limits.into_iter().filter(|(_, devices)| !devices.is_empty());
    Some(told.map(|(name, devices)| Property::new(name, PropertyValue::DeviceNumbers(devices))).collect())
}

/// `DevicePolicy` and `DeviceAllow` of the rules.
///
/// systemd knows only devices that are allowed, so it may be told of more than the rules allow in
/// the end; our own program decides beside it, and an access needs the consent of both.
pub fn of_devices(rules: &[DeviceRule]) -> Vec<Property> {
    let whole = |rule: &&DeviceRule| rule.kind.is_none() && rule.major.is_none() && rule.minor.is_none();
    let start = rules.iter().rposition(|rule| whole(&rule) && rule.access == Access::ALL);
    let (default, rest) = match start {
        Some(start) => {
            (rules.get(start).is_some_and(|rule| rule.allow), rules.get(start + 1..).unwrap_or_default())
        }
        None => (false, rules),
    };
    let policy = |policy: &str| Property::new("DevicePolicy", PropertyValue::Text(policy.to_owned()));
    if default {
        return vec![policy("auto"), Property::new("DeviceAllow", PropertyValue::Devices(Vec::new()))];
    }
    let mut allowed: Vec<(String, String)> = Vec::new();
    for rule in rest.iter().filter(|rule| rule.allow) {
        let kinds: &[(DeviceKind, &str)] = &[(DeviceKind::Block, "block"), (DeviceKind::Char, "char")];
        for (_, kind) in kinds.iter().filter(|(kind, _)| rule.kind.is_none_or(|of| of == *kind)) {
            let node = match (rule.major, rule.minor) {
                (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
                (Some(major), None) => format!("{kind}-{major}"),
                (None, _) => format!("{kind}-*"),
            };
            allowed.push((node, rule.access.to_string()));
        }
    }
    vec![policy("strict"), Property::new("DeviceAllow", PropertyValue::Devices(allowed))]
}

/// Turns accounting on for what is limited or measured.
pub fn accounting(layout: LayoutKind) -> Vec<Property> {
    let io = if layout == LayoutKind::V2 { "IOAccounting" } else { "BlockIOAccounting" };
    ["CPUAccounting", "MemoryAccounting", "TasksAccounting", io]
        .into_iter()
        .map(|name| Property::new(name, PropertyValue::Bool(true)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::devices::default_rules;

    fn shown(json: &str) -> Vec<String> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let properties = of_resources(&resources, LayoutKind::V2).unwrap();
        let text = |property: &Property| {
            format!("{}={}", property.name, serde_json::to_string(&property.value).unwrap())
        };
        properties.iter().map(text).collect()
    }

    #[test]
    fn limits_become_properties_in_systemds_units() {
        assert_eq!(
            shown(r#"{"memory":{"limit":1000,"swap":3000,"reservation":10},"pids":{"limit":5}}"#),
            ["MemoryMax=1000", "MemoryLow=10", "MemorySwapMax=2000", "TasksMax=5"]
        );
        assert_eq!(
            shown(r#"{"cpu":{"shares":1024,"quota":33333,"period":50000,"cpus":"0-1,9"}}"#),
            ["CPUWeight=100", "CPUQuotaPeriodUSec=50000", "CPUQuotaPerSecUSec=670000", "AllowedCPUs=[3,2]"]
        );
        assert_eq!(
            shown(r#"{"memory":{"limit":-1}}"#),
            ["MemoryMax=18446744073709551615", "MemorySwapMax=18446744073709551615"]
        );
        assert_eq!(
            shown(
                r#"{"unified":{"memory.high":"max","cpu.max":"50000 100000","misc.max":"x 1","cpuset.cpus":""}}"#
            ),
            [
                "CPUQuotaPeriodUSec=100000",
                "CPUQuotaPerSecUSec=500000",
                "AllowedCPUs=[]",
                "MemoryHigh=18446744073709551615"
            ]
        );
    }

    #[test]
    fn unified_files_become_the_properties_that_stand_for_them() {
        assert_eq!(
            shown(
                r#"{"unified":{"io.weight":"default 500\n8:0 50","io.max":"8:0 rbps=9 wiops=max","memory.zswap.max":"max"}}"#
            ),
            [
                r#"IOReadBandwidthMax=[["/dev/block/8:0",9]]"#,
                r#"IOWriteIOPSMax=[["/dev/block/8:0",18446744073709551615]]"#,
                "IOWeight=500",
                r#"IODeviceWeight=[["/dev/block/8:0",50]]"#,
                "MemoryZSwapMax=18446744073709551615",
            ]
        );
    }

    #[test]
    fn idleness_is_a_weight_and_leaves_no_other() {
        assert_eq!(shown(r#"{"cpu":{"shares":2048,"idle":1}}"#), ["CPUWeight=0"]);
        assert_eq!(
            shown(r#"{"cpu":{"shares":2048},"unified":{"cpu.idle":"1","cpu.weight":"8"}}"#),
            ["CPUWeight=0"]
        );
        assert_eq!(shown(r#"{"unified":{"cpu.idle":"0","cpu.weight":"8"}}"#), ["CPUWeight=8"]);
    }

    #[test]
    fn a_quota_is_written_as_systemd_keeps_it() {
        let kept = |json: &str| {
            let resources: LinuxResources = serde_json::from_str(json).unwrap();
            serde_json::to_value(as_kept(&resources).as_ref()).unwrap()
        };
        assert_eq!(kept(r#"{"cpu":{"quota":33333,"period":50000}}"#)["cpu"]["quota"], 33500);
        for (max, expected) in
            [("33333 50000", "33500 50000"), ("33333", "34000 100000"), ("max 50000", "max 50000")]
        {
            let kept = kept(&format!(r#"{{"unified":{{"cpu.max":"{max}"}}}}"#));
            assert_eq!(kept["unified"]["cpu.max"], expected);
        }
    }

    #[test]
    fn throttles_name_devices_by_number() {
        assert_eq!(
            shown(r#"{"blockIO":{"weight":10,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":9}]}}"#),
            ["IOWeight=1", r#"IOReadBandwidthMax=[["/dev/block/8:0",9]]"#]
        );
    }

    #[test]
    fn the_default_devices_are_a_strict_list() {
        let properties = of_devices(default_rules());
        assert_eq!(properties[0].value, PropertyValue::Text("strict".into()));
        let PropertyValue::Devices(devices) = &properties[1].value else { panic!("{properties:?}") };
        assert!(devices.contains(&("/dev/char/1:3".into(), "rwm".into())));
        assert!(devices.contains(&("char-136".into(), "rwm".into())));
        assert!(devices.contains(&("block-*".into(), "m".into())));
    }
}
