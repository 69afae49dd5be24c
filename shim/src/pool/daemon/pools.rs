//! Pools by name and by bundle, and the identity of what they stand on.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hearth::observe::log;
use hearth::pool::client::Declared;

use super::super::config;
use super::super::policy::{self, BundleKey, Event, Generation, PoolId};
use super::super::wire::ToForker;
use super::Daemon;

/// What a sandbox is thought to cost until the first is measured.
pub(super) const COST: u64 = 600 << 10;
/// A learned pool grows to this.
const LEARNED_MAX: u32 = 64;

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) bundle: String,
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) generation: Generation,
    pub(super) learned: bool,
    /// Whether its declaration is a file of ours.
    stored: bool,
    /// Bytes, once one was weighed.
    pub(super) cost: Option<u64>,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) trouble: Option<String>,
}

/// How large a pool is, and who keeps its declaration.
struct Kept {
    min: u32,
    max: u32,
    learned: bool,
    stored: bool,
}

#[derive(Debug)]
pub(super) struct Pools {
    /// Declarations, a file each.
    dir: PathBuf,
    next: u32,
    pub(super) all: BTreeMap<PoolId, Pool>,
    by_name: HashMap<String, PoolId>,
    by_bundle: HashMap<String, PoolId>,
    /// Bundles that were launched cold, for the policy to learn of.
    pub(super) seen: HashMap<u128, String>,
}

impl Pools {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            next: 0,
            all: BTreeMap::new(),
            by_name: HashMap::new(),
            by_bundle: HashMap::new(),
            seen: HashMap::new(),
        }
    }

    pub(super) fn named(&self, name: &str) -> Option<PoolId> {
        self.by_name.get(name).copied()
    }

    pub(super) fn of_bundle(&self, bundle: &str) -> Option<PoolId> {
        self.by_bundle.get(bundle).copied()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    /// On disk first: what was promised survives us.
    fn store(&self, pool: &Pool) -> Result<(), String> {
        let declared = Declared { bundle: pool.bundle.clone().into(), min: pool.min, max: pool.max };
        let path = self.file(&pool.name);
        let draft = self.dir.join(format!(".{}.json", pool.name));
        let text = serde_json::to_vec(&declared).map_err(|error| error.to_string())?;
        let write = || {
            std::fs::create_dir_all(&self.dir)?;
            let mut file = std::fs::File::create(&draft)?;
            std::io::Write::write_all(&mut file, &text)?;
            file.sync_all()?;
            std::fs::rename(&draft, &path)?;
            std::fs::File::open(&self.dir)?.sync_all()
        };
        write().map_err(|error| format!("write {}: {error}", path.display()))
    }

    pub(super) fn remove(&mut self, pool: PoolId) -> Option<Pool> {
        let pool = self.all.remove(&pool)?;
        self.by_name.remove(&pool.name);
        self.by_bundle.remove(&pool.bundle);
        if pool.stored {
            let _ = std::fs::remove_file(self.file(&pool.name));
        }
        Some(pool)
    }

    fn insert(&mut self, pool: Pool) -> PoolId {
        let id = PoolId(self.next);
        self.next += 1;
        self.by_name.insert(pool.name.clone(), id);
        self.by_bundle.insert(pool.bundle.clone(), id);
        self.all.insert(id, pool);
        id
    }
}

/// The identity of a bundle: another config.json or another root file system is another generation. What changes
/// inside the root file system, running containers see as well.
pub(super) fn generation(bundle: &str) -> Option<Generation> {
    let config = std::fs::metadata(Path::new(bundle).join("config.json")).ok()?;
    let mut hasher = DefaultHasher::new();
    let time = (config.mtime(), config.mtime_nsec(), config.ctime(), config.ctime_nsec());
    (config.dev(), config.ino(), config.size(), time).hash(&mut hasher);
    if let Ok(rootfs) = std::fs::metadata(Path::new(bundle).join("rootfs")) {
        (rootfs.dev(), rootfs.ino()).hash(&mut hasher);
    }
    Some(Generation(hasher.finish()))
}

/// For the policy, which remembers bundles by a number.
pub(super) fn key(bundle: &str) -> BundleKey {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, bundle).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    BundleKey(half(0) << 64 | half(1))
}

impl Daemon {
    /// All that was declared before, at the start, and to a new forker.
    pub(super) fn declare_all(&mut self) {
        if self.pools.all.is_empty() {
            let files = std::fs::read_dir(&self.pools.dir).into_iter().flatten();
            let names: Vec<String> = files
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
                .collect();
            for name in names {
                if let Some(Declared { bundle, min, max }) = Declared::read(&self.pools.dir, &name) {
                    let spec = Kept { min, max, learned: false, stored: true };
                    self.declare(name, bundle.display().to_string(), spec);
                }
            }
            return;
        }
        let pools: Vec<_> = self.pools.all.iter().map(|(id, pool)| (*id, pool.bundle.clone())).collect();
        for (pool, bundle) in pools {
            self.tell_forker(&ToForker::Prepare { pool: pool.0, bundle });
        }
    }

    /// Those of the configuration, which is where they are kept.
    pub(super) fn declare_more(&mut self, declared: &[config::Declared]) {
        for pool in declared {
            let bundle = pool.bundle.as_deref().unwrap_or(Path::new("")).display().to_string();
            if self.pools.named(&pool.name).is_some() || self.pools.of_bundle(&bundle).is_some() {
                log::warn(&format!("pool {}: its name or bundle has a pool already", pool.name));
                continue;
            }
            let spec = Kept { min: pool.min, max: pool.max, learned: false, stored: false };
            self.declare(pool.name.clone(), bundle, spec);
        }
    }

    pub(super) fn create_pool(
        &mut self,
        name: String,
        bundle: String,
        min: u32,
        max: u32,
    ) -> Result<(), String> {
        hearth::bundle::validate::id(&name).map_err(|error| error.chain())?;
        if min > max || max == 0 {
            return Err(format!("--max: {max}: expected at least 1 and no less than --min {min}"));
        }
        if self.pools.named(&name).is_some() {
            return Err(format!("pool {name} exists"));
        }
        if let Some(other) = self.pools.of_bundle(&bundle) {
            if self.pools.all[&other].learned {
                self.drop_pool(other);
            } else {
                return Err(format!("bundle {bundle} has a pool: {}", self.pools.all[&other].name));
            }
        }
        if generation(&bundle).is_none() {
            return Err(format!("--bundle: {bundle}: expected a directory with a config.json"));
        }
        self.declare(name, bundle, Kept { min, max, learned: false, stored: true });
        Ok(())
    }

    fn declare(&mut self, name: String, bundle: String, kept: Kept) {
        let Kept { min, max, learned, stored } = kept;
        let generation = generation(&bundle).unwrap_or(Generation(0));
        let (hits, misses, trouble) = (0, 0, None);
        let cost = None;
        let pool = Pool { name, bundle, min, max, generation, learned, stored, cost, hits, misses, trouble };
        if stored && let Err(message) = self.pools.store(&pool) {
            log::warn(&message);
        }
        let learned = learned.then(|| key(&pool.bundle));
        let bundle = pool.bundle.clone();
        let id = self.pools.insert(pool);
        self.tell_forker(&ToForker::Prepare { pool: id.0, bundle });
        let spec = policy::Pool { min, max, cost: COST, generation, learned };
        self.decide(Event::PoolDeclared { pool: id, spec });
    }

    pub(super) fn resize_pool(&mut self, name: &str, min: u32, max: u32) -> Result<(), String> {
        if min > max || max == 0 {
            return Err(format!("--max: {max}: expected at least 1 and no less than --min {min}"));
        }
        let id = self.pools.named(name).ok_or_else(|| no_pool(name))?;
        let Some(pool) = self.pools.all.get_mut(&id) else { return Err(no_pool(name)) };
        (pool.min, pool.max) = (min, max);
        if self.pools.all[&id].stored {
            self.pools.store(&self.pools.all[&id])?;
        }
        self.decide(Event::PoolResized { pool: id, min, max });
        Ok(())
    }

    pub(super) fn drain_pool(&mut self, name: &str) -> Result<(), String> {
        let pool = self.pools.named(name).ok_or_else(|| no_pool(name))?;
        self.decide(Event::PoolDrained { pool });
        Ok(())
    }

    pub(super) fn drain_all(&mut self) {
        let pools: Vec<PoolId> = self.pools.all.keys().copied().collect();
        pools.into_iter().for_each(|pool| self.decide(Event::PoolDrained { pool }));
    }

    pub(super) fn delete_pool(&mut self, name: &str) -> Result<(), String> {
        let pool = self.pools.named(name).ok_or_else(|| no_pool(name))?;
        self.drop_pool(pool);
        Ok(())
    }

    fn drop_pool(&mut self, pool: PoolId) {
        self.pools.remove(pool);
        self.tell_forker(&ToForker::Forget { pool: pool.0 });
        self.decide(Event::PoolDeleted { pool });
    }

    /// Whether the bundle is still what the pool's sandboxes were made from. If not, they never serve again.
    pub(super) fn check_generation(&mut self, id: PoolId) {
        let Some(pool) = self.pools.all.get_mut(&id) else { return };
        let now = generation(&pool.bundle).unwrap_or(Generation(0));
        if now == pool.generation {
            return;
        }
        pool.generation = now;
        pool.cost = None;
        let bundle = pool.bundle.clone();
        self.tell_forker(&ToForker::Prepare { pool: id.0, bundle });
        self.decide(Event::GenerationChanged { pool: id, generation: now });
    }

    pub(super) fn learn(&mut self, bundle: BundleKey) {
        let Some(path) = self.pools.seen.remove(&bundle.0) else { return };
        if self.pools.of_bundle(&path).is_none() {
            let name = format!("learned-{:08x}", bundle.0 & 0xffff_ffff);
            self.declare(name, path, Kept { min: 0, max: LEARNED_MAX, learned: true, stored: false });
        }
    }

    pub(super) fn forget(&mut self, pool: PoolId) {
        self.drop_pool(pool);
    }
}

fn no_pool(name: &str) -> String {
    format!("pool: {name}: expected one of `hearth pool list`")
}
