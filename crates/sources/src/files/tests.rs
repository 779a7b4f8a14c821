use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use mizzen_config::Change;

use super::{FileSource, SourceError};
use crate::state::Batch;

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
    tokio::time::timeout(Duration::from_secs(5), source.next()).await.expect("a change is seen within 5 s")
}

fn watch(folder: &Path) -> (FileSource, Batch) {
    FileSource::watch(vec![folder.to_owned()]).expect("a folder that exists can be watched")
}

#[tokio::test]
async fn a_saved_file_is_seen_soon() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, service("a", 1)).unwrap();
    let (mut source, first) = watch(folder.path());
    assert_eq!(names(&first), ["+a"]);
    let saved = Instant::now();
    fs::write(&file, service("a", 2)).unwrap();
    assert_eq!(names(&next(&mut source).await), ["+a"]);
    assert!(saved.elapsed() < Duration::from_millis(500), "{:?}", saved.elapsed());
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

#[tokio::test]
async fn half_a_file_is_not_taken_for_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    fs::write(&path, service("a", 1) + "---\n" + &service("b", 1)).unwrap();
    let (mut source, _) = watch(folder.path());
    let writer = tokio::task::spawn_blocking(move || {
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(service("a", 2).as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        file.write_all(("---\n".to_owned() + &service("b", 1)).as_bytes()).unwrap();
    });
    assert_eq!(names(&next(&mut source).await), ["+a"]);
    writer.await.unwrap();
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

#[test]
fn a_path_that_does_not_exist_is_named() {
    let outcome = FileSource::watch(vec!["does/not/exist".into()]);
    assert!(matches!(outcome, Err(SourceError::Missing { .. })));
}
