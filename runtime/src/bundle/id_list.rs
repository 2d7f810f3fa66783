//! Lists of CPUs and memory nodes, as the kernel writes them: `0-3,7` (cpuset(7), "List format").

use std::fmt;

/// The largest id that a list may name. Linux on any architecture has at most 8192 CPUs and 1024 nodes; the bound is
/// wider so that only nonsense hits it, and low enough that a mask of all ids is 8 KiB.
const MAX_ID: u32 = 65_535;

/// A set of CPUs or memory nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdList {
    ranges: Vec<(u32, u32)>,
}

impl IdList {
    /// Parses `0-3,7`. Blanks around and empty elements between the commas are ignored, as runc does; so an empty
    /// text is an empty list.
    ///
    /// # Errors
    /// What is wrong with the text, as the end of a sentence that names it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut ranges = Vec::new();
        for element in text.split(',').map(str::trim).filter(|element| !element.is_empty()) {
            let (first, last) = match element.split_once('-') {
                Some((first, last)) => (id(first, element)?, id(last, element)?),
                None => (id(element, element)?, id(element, element)?),
            };
            if first > last {
                return Err(format!("in {element:?} the first number is larger than the last"));
            }
            ranges.push((first, last));
        }
        Ok(Self { ranges })
    }

    /// Whether no id is in the list.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The largest id in the list.
    pub fn max(&self) -> Option<u32> {
        self.ranges.iter().map(|(_, last)| *last).max()
    }

    /// The ids, in the order of the text; an id that is named twice comes twice.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// The list as a bit mask of 64-bit words, the lowest id first: what sched_setaffinity(2) and
    /// set_mempolicy(2) take. As long as the largest id needs, so that there is no limit of 1024 CPUs.
    pub fn mask(&self) -> Vec<u64> {
        let mut words = vec![0; self.max().map_or(0, |max| max as usize / 64 + 1)];
        for id in self.ids() {
            if let Some(word) = words.get_mut(id as usize / 64) {
                *word |= 1 << (id % 64);
            }
        }
        words
    }
}

impl fmt::Display for IdList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

fn id(text: &str, element: &str) -> Result<u32, String> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{element:?} is neither a number nor a range; write a list such as \"0-3,7\""));
    }
    text.parse().ok().filter(|id| *id <= MAX_ID).ok_or_else(|| format!("{text} is larger than {MAX_ID}"))
}

/// Checks a list for a cpuset file, `cpuset.cpus` or `cpuset.mems`, which is written as it is. The kernel takes more
/// than [`IdList::parse`] there: `all`, `N` for the last id, and groups, `0-31:2/8`.
///
/// # Errors
/// What is wrong with the text, as the end of a sentence that names it.
pub fn check_cpuset(text: &str) -> Result<(), String> {
    let separator = |c: char| c == ',' || c.is_ascii_whitespace();
    for element in text.split(separator).filter(|element| !element.is_empty()) {
        let (range, group) = match element.split_once(':') {
            Some((range, group)) => (range, Some(group)),
            None => (element, None),
        };
        if !range.eq_ignore_ascii_case("all") {
            let bound = |text: &str| if text == "N" { Ok(MAX_ID) } else { id(text, element) };
            let (first, last) = match range.split_once('-') {
                Some((first, last)) => (bound(first)?, bound(last)?),
                None => (bound(range)?, bound(range)?),
            };
            if first > last {
                return Err(format!("in {element:?} the first number is larger than the last"));
            }
        }
        if let Some(group) = group {
            let sizes = group.split_once('/').map(|(used, size)| (id(used, element), id(size, element)));
            match sizes {
                Some((Ok(used), Ok(size))) if size > 0 && used <= size => {}
                _ => return Err(format!("{element:?} has a wrong group; write first-last:used/size")),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_the_set_of_its_numbers_and_ranges() {
        let list = IdList::parse("0-3, 7,,9-9 ").expect("a good list");
        assert_eq!(list.ids().collect::<Vec<_>>(), [0, 1, 2, 3, 7, 9]);
        assert_eq!(list.to_string(), "0-3,7,9");
        assert_eq!(list.mask(), [0b10_1000_1111]);
        assert!(IdList::parse("").expect("an empty list").is_empty());
    }

    #[test]
    fn cpus_above_1024_have_their_place_in_the_mask() {
        let list = IdList::parse("63-64,4095").expect("a good list");
        let mask = list.mask();
        assert_eq!((mask.len(), mask[0], mask[1], mask[63]), (64, 1 << 63, 1, 1 << 63));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in
            ["a", "1-", "-1", "3-1", "0x1", "1-2-3", "+1", "65536", "99999999999999999999", "0;1", "١"]
        {
            assert!(IdList::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_cpuset_may_use_all_that_the_kernel_knows() {
        for text in ["", "0", "0-3,7", "0-3 5\n", "all", "0-N", "0-31:2/8", "all:1/2"] {
            assert_eq!(check_cpuset(text), Ok(()), "{text}");
        }
        for text in ["x", "3-1", "0-31:9/8", "0-31:1/0", "0-31:1", "1-2-3", "-1"] {
            assert!(check_cpuset(text).is_err(), "{text}");
        }
    }
}
