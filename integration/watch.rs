//! No story hangs: one that lasts longer than it may ends the whole run, and says what it waited for.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// In a healthy run the longest one takes about four minutes, installations included.
const STORY_MAX: Duration = Duration::from_mins(15);

/// The stories that run, and when each one must have ended.
static RUNNING: LazyLock<Mutex<HashMap<ThreadId, (String, Instant)>>> = LazyLock::new(|| {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(2));
            look();
        }
    });
    Mutex::default()
});

fn running() -> MutexGuard<'static, HashMap<ThreadId, (String, Instant)>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    static STORY: Story = {
        must_end_within(STORY_MAX);
        Story
    };
}

/// Ends with its test's thread.
struct Story;

impl Drop for Story {
    fn drop(&mut self) {
        running().remove(&std::thread::current().id());
    }
}

/// The story of this thread is watched from here on; threads that it spawns are not.
pub(crate) fn watch() {
    STORY.with(|_| {});
}

/// What comes next may take that long by itself, which is not for the watch to end.
pub(crate) fn may_take(limit: Duration) {
    watch();
    must_end_within(limit + STORY_MAX);
}

fn must_end_within(limit: Duration) {
    let thread = std::thread::current();
    let Some(name) = thread.name().filter(|name| name.contains("::")) else { return };
    running().insert(thread.id(), (name.to_owned(), Instant::now() + limit));
}

fn look() {
    let running = running();
    let Some((name, _)) = running.values().find(|(_, end)| Instant::now() > *end) else { return };
    let pids = descendants(std::process::id());
    let mut report = format!("\n{name} hangs: the run is ended. What runs below it:\n");
    for pid in &pids {
        report += &describe(*pid);
    }
    // The macros that print write to where the story's own words are kept.
    let _ = std::io::stderr().write_all(report.as_bytes());
    kill(&pids);
    std::process::exit(101);
}

/// The command of a process, and what each of its threads does in the kernel.
pub(crate) fn describe(pid: u32) -> String {
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    let command = read(format!("/proc/{pid}/cmdline")).replace('\0', " ");
    let mut text = format!("  {pid} {command}\n");
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let place = task.path().display().to_string();
        let (name, wait) = (read(format!("{place}/comm")), read(format!("{place}/wchan")));
        let stat = read(format!("{place}/stat"));
        let state = after_name(&stat).split_whitespace().next();
        let _ = writeln!(text, "    {} {} {wait}", name.trim(), state.unwrap_or("gone"));
    }
    text
}

/// What stands in a `stat` file after the name of the program, which may hold anything.
fn after_name(stat: &str) -> &str {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest)
}

/// The processes that a process started, and those that they started.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pairs: Vec<(u32, u32)> = processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, after_name(&stat).split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(pairs.iter().filter(|pair| pair.1 == parent).map(|pair| pair.0));
        next += 1;
    }
    found.split_off(1)
}

/// `kill -9` of all of them.
pub(crate) fn kill(pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    let _ = std::process::Command::new("kill").arg("-9").args(pids).status();
}

#[test]
fn the_processes_below_a_process_are_found_and_ended_with_it() {
    let mut shell = std::process::Command::new("sh");
    let mut shell = shell.args(["-c", "sleep 1000 & sleep 1000"]).spawn().expect("a shell");
    let below = || descendants(shell.id());
    crate::kit::eventually("the shell has started both", || below().len() == 2);
    let found = below();
    assert!(found.iter().all(|pid| describe(*pid).contains("sleep 1000")), "{found:?}");
    kill(&[&found[..], &[shell.id()]].concat());
    shell.wait().expect("it ends");
    let is_left = |pid: &u32| describe(*pid).contains("sleep 1000");
    crate::kit::eventually("none is left", || !found.iter().any(is_left));
}
