use std::fs;
use std::path::Path;
use std::time::Duration;

use mizzen_config::Change;
use notify::event::DataChange;

use super::*;

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{ports: [{{name: http, port: {port}}}]}}\n"
    )
}

fn names(batch: &Batch) -> Vec<String> {
    let name = |change: &Change| match change {
        Change::Put(object) => format!("+{}", object.key.name),
        Change::Delete(key) => format!("-{}", key.name),
    };
    batch.changes.iter().map(name).collect()
}

async fn next(source: &mut FileSource) -> Batch {
    tokio::time::timeout(Duration::from_secs(60), source.next()).await.expect("a change is seen")
}

fn watch(folder: &Path) -> (FileSource, Batch) {
    FileSource::watch(vec![folder.to_owned()]).expect("a folder that exists can be watched")
}

#[tokio::test]
async fn a_saved_file_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, service("a", 1)).unwrap();
    let (mut source, first) = watch(folder.path());
    assert_eq!(names(&first), ["+a"]);
    fs::write(&file, service("a", 2)).unwrap();
    assert_eq!(names(&next(&mut source).await), ["+a"]);
    fs::remove_file(&file).unwrap();
    assert_eq!(names(&next(&mut source).await), ["-a"]);
}

#[tokio::test]
async fn a_file_that_is_replaced_by_renaming_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), service("a", 1)).unwrap();
    let (mut source, _) = watch(folder.path());
    fs::write(folder.path().join(".a.yaml.tmp"), service("a", 2)).unwrap();
    fs::rename(folder.path().join(".a.yaml.tmp"), folder.path().join("a.yaml")).unwrap();
    assert_eq!(names(&next(&mut source).await), ["+a"]);
}

/// A source that is told of events by the test, in virtual time.
fn told(folder: &Path) -> (FileSource, impl Fn(EventKind, &Path) + use<>) {
    let (mut source, _) = watch(folder);
    let (tell, events) = mpsc::unbounded_channel();
    source.events = events;
    (source, move |kind, path: &Path| tell.send(Ok(notify::Event::new(kind).add_path(path.to_owned()))).unwrap())
}

const WRITE: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
const CLOSE: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));

#[tokio::test(start_paused = true)]
async fn half_a_file_is_not_taken_for_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let (mut source, tell) = told(folder.path());
    let path = folder.path().join("a.yaml");
    let writer = tokio::spawn(async move {
        for _ in 0..3 {
            tell(WRITE, &path);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tell(CLOSE, &path);
        (Instant::now(), tell)
    });
    source.settled().await;
    let (closed, _tell) = writer.await.unwrap();
    assert_eq!(closed.elapsed(), SETTLE);
}

#[tokio::test(start_paused = true)]
async fn who_never_closes_a_file_is_not_waited_for_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let (mut source, tell) = told(folder.path());
    let path = folder.path().join("a.yaml");
    tokio::spawn(async move {
        loop {
            tell(WRITE, &path);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let began = Instant::now();
    source.settled().await;
    assert_eq!(began.elapsed(), SETTLE_MAX);
}

#[tokio::test]
async fn other_files_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("examples")).unwrap();
    fs::write(folder.path().join("examples/a.yaml"), service("a", 1)).unwrap();
    fs::write(folder.path().join(".b.yaml"), service("b", 1)).unwrap();
    fs::write(folder.path().join("c.yaml~"), service("c", 1)).unwrap();
    fs::write(folder.path().join("d.yml"), service("d", 1)).unwrap();
    assert_eq!(names(&watch(folder.path()).1), ["+d"]);
}

/// As a ConfigMap is mounted: all files change at once when a link is renamed.
#[tokio::test]
async fn files_behind_a_link_that_is_exchanged_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, port) in [("..v1", 1), ("..v2", 2)] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("a.yaml"), service("a", port)).unwrap();
    }
    std::os::unix::fs::symlink("..v1", at("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", at("a.yaml")).unwrap();
    let (mut source, first) = watch(folder.path());
    assert_eq!(names(&first), ["+a"]);
    std::os::unix::fs::symlink("..v2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    assert_eq!(names(&next(&mut source).await), ["+a"]);
}

#[tokio::test(start_paused = true)]
async fn a_busy_neighbour_does_not_delay() {
    let folder = tempfile::tempdir().unwrap();
    let (mut source, tell) = told(folder.path());
    let (file, log) = (folder.path().join("a.yaml"), folder.path().join("app.log"));
    tell(WRITE, &file);
    tell(CLOSE, &file);
    tokio::spawn(async move {
        loop {
            tell(WRITE, &log);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let saved = Instant::now();
    source.settled().await;
    assert_eq!(saved.elapsed(), SETTLE);
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), "# ü\n".repeat(500_000)).unwrap();
    let findings = FileSource::watch(vec![folder.path().to_owned()]).expect("the folder is there").1.findings.unwrap();
    assert!(findings[0].message.contains("2500000 bytes"), "{findings:?}");
}

#[test]
fn a_path_that_does_not_exist_is_named() {
    let outcome = FileSource::watch(vec!["does/not/exist".into()]);
    assert!(matches!(outcome, Err(SourceError::Missing { .. })));
}
