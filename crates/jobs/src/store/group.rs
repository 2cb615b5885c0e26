//! Group commit: what is asked for while an earlier group is being committed goes together in the next. A lone caller
//! waits for nobody. Knows no statement, and nothing of what is asked.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::tasks::Tasks;

/// So many go into one statement at most.
pub(super) const MOST: usize = 500;
/// And so many bytes, by estimate.
const HEAVIEST: usize = 4 * 1024 * 1024;

/// How many groups are under way at once, so that while one waits for the disk the next is worked on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes {
    /// At most so many.
    pub(super) most: usize,
    /// Below this they wait for a group that is under way, and go together.
    pub(super) crowd: Crowd,
    /// After a group of several the next waits for so long to become as large, if some of it are there already: where many
    /// come, one statement for all of them costs least.
    pub(super) linger: Option<Duration>,
}

/// How many must wait before one more group goes beside those that are under way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Crowd {
    /// So many; a lane that is open goes on as long as anybody waits.
    Of(usize),
    /// Half as many as are under way, for a lane that is open too: a few callers wait for nobody, and of many a third gathers
    /// while the others are served, so that groups grow with the number of callers. Who has waited for as long as `patience` goes
    /// as soon as a lane is free: a group may be held up by one of its own.
    HalfUnderWay { patience: Duration },
}

/// Does what a group asks for, together; gives the answers in the same order.
pub(super) type Settle<Asked, Answer> =
    Box<dyn Fn(Vec<Asked>) -> BoxFuture<'static, Vec<Answer>> + Send>;

struct Waiting<Asked, Answer> {
    asked: Asked,
    weight: usize,
    since: Instant,
    tell: oneshot::Sender<Answer>,
}

struct State<Asked, Answer> {
    waiting: VecDeque<Waiting<Asked, Answer>>,
    open: usize,
    /// How many are in the groups under way.
    under_way: usize,
    /// Whether somebody looks after those who have waited for long.
    is_watched: bool,
}

/// Callers who ask for the same kind of thing.
pub(super) struct Group<Asked, Answer> {
    lanes: Lanes,
    state: Arc<Mutex<State<Asked, Answer>>>,
    /// The groups under way. They are nobody else's: a caller who waits no longer must not cut off the others of its group.
    tasks: Arc<Tasks>,
}

impl<Asked, Answer> fmt::Debug for Group<Asked, Answer> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").finish_non_exhaustive()
    }
}

impl<Asked, Answer> Clone for Group<Asked, Answer> {
    fn clone(&self) -> Self {
        Self {
            lanes: self.lanes,
            state: Arc::clone(&self.state),
            tasks: Arc::clone(&self.tasks),
        }
    }
}

impl<Asked: Send + 'static, Answer: Send + 'static> Group<Asked, Answer> {
    /// Nobody asks yet.
    pub(super) fn new(lanes: Lanes) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            open: 0,
            under_way: 0,
            is_watched: false,
        };
        Self {
            lanes,
            state: Arc::new(Mutex::new(state)),
            tasks: Arc::default(),
        }
    }

    /// Asks, alone or with others; `None` when the group broke down before it was answered. `settle` is that of whoever
    /// finds a lane free, and serves all who come meanwhile: it must be the same for all.
    pub(super) async fn ask(
        &self,
        asked: Asked,
        weight: usize,
        settle: impl FnOnce() -> Settle<Asked, Answer>,
    ) -> Option<Answer> {
        self.put(asked, weight, settle).await.ok()
    }

    /// Asks without caring for an answer.
    pub(super) fn tell(&self, asked: Asked, settle: impl FnOnce() -> Settle<Asked, Answer>) {
        drop(self.put(asked, 0, settle));
    }

    fn put(
        &self,
        asked: Asked,
        weight: usize,
        settle: impl FnOnce() -> Settle<Asked, Answer>,
    ) -> oneshot::Receiver<Answer> {
        let (tell, told) = oneshot::channel();
        let mut state = lock(&self.state);
        state.waiting.push_back(Waiting {
            asked,
            weight,
            since: Instant::now(),
            tell,
        });
        let is_crowded = match self.lanes.crowd {
            Crowd::Of(crowd) => state.waiting.len() >= crowd,
            // With nothing under way yet, the lane that is open is about to take what waits.
            Crowd::HalfUnderWay { patience } => {
                state.under_way > 0 && state.is_worth_a_lane(patience)
            }
        };
        // Tasks are begun without the lock: a runtime that is shutting down drops them at once, and a lane takes it then.
        if state.open == 0 || (state.open < self.lanes.most && is_crowded) {
            state.open += 1;
            drop(state);
            let lane = Lane::new(self.lanes, &self.state);
            self.tasks.spawn(serve(lane, settle()));
        } else if let Crowd::HalfUnderWay { patience } = self.lanes.crowd
            && !state.is_watched
        {
            state.is_watched = true;
            drop(state);
            let watch = Watch::new(&self.state);
            self.tasks.spawn(watch.keep(self.lanes, patience, settle()));
        }
        told
    }
}

impl<Asked, Answer> State<Asked, Answer> {
    /// Whether half as many wait as are under way, or the first of them has waited for so long.
    fn is_worth_a_lane(&self, patience: Duration) -> bool {
        let has_waited = |first: &Waiting<_, _>| first.since.elapsed() >= patience;
        self.waiting.len() * 2 >= self.under_way || self.waiting.front().is_some_and(has_waited)
    }
}

/// A place among those who serve, given back however its holder ends.
struct Lane<Asked, Answer> {
    lanes: Lanes,
    state: Arc<Mutex<State<Asked, Answer>>>,
    /// How many are in the group that it serves.
    taken: usize,
    is_given_back: bool,
}

impl<Asked, Answer> Lane<Asked, Answer> {
    /// One that was counted as open.
    fn new(lanes: Lanes, state: &Arc<Mutex<State<Asked, Answer>>>) -> Self {
        Self {
            lanes,
            state: Arc::clone(state),
            taken: 0,
            is_given_back: false,
        }
    }

    /// What waits, up to the limits. When nothing does, or too few to go beside another group, the lane is given back in the
    /// same breath, so that whoever comes next finds it free.
    fn next(&mut self) -> Vec<Waiting<Asked, Answer>> {
        let mut state = lock(&self.state);
        state.under_way -= self.taken;
        let is_worth_it = match self.lanes.crowd {
            Crowd::Of(_) => true,
            Crowd::HalfUnderWay { patience } => state.is_worth_a_lane(patience),
        };
        let (mut group, mut weight) = (Vec::new(), 0);
        while let Some(next) = state.waiting.front().filter(|_| is_worth_it) {
            weight += next.weight;
            if group.len() == MOST || (weight > HEAVIEST && !group.is_empty()) {
                break;
            }
            group.extend(state.waiting.pop_front());
        }
        self.taken = group.len();
        state.under_way += self.taken;
        if group.is_empty() {
            state.open -= 1;
            self.is_given_back = true;
        }
        group
    }
}

impl<Asked, Answer> Lane<Asked, Answer> {
    /// For how long the next group is waited for after one of this size.
    fn lingers_after(&self, size: usize) -> Option<Duration> {
        let waiting = lock(&self.state).waiting.len();
        self.lanes.linger.filter(|_| (1..size).contains(&waiting))
    }
}

impl<Asked, Answer> Drop for Lane<Asked, Answer> {
    fn drop(&mut self) {
        if self.is_given_back {
            return;
        }
        let mut state = lock(&self.state);
        state.open -= 1;
        state.under_way -= self.taken;
        // With the last lane broken down nobody comes for these: the end of their channels tells them.
        if state.open == 0 {
            state.waiting.clear();
        }
    }
}

/// The right to watch over those who wait, given back however its holder ends.
struct Watch<Asked, Answer> {
    state: Arc<Mutex<State<Asked, Answer>>>,
    is_given_back: bool,
}

impl<Asked, Answer> Watch<Asked, Answer> {
    /// One that was noted.
    fn new(state: &Arc<Mutex<State<Asked, Answer>>>) -> Self {
        Self {
            state: Arc::clone(state),
            is_given_back: false,
        }
    }

    /// Opens a lane for those who have waited for `patience`, once there is one to open; ends when nobody waits.
    async fn keep(mut self, lanes: Lanes, patience: Duration, settle: Settle<Asked, Answer>) {
        let mut pause = patience;
        let lane = loop {
            tokio::time::sleep(pause).await;
            let mut state = lock(&self.state);
            let Some(first) = state.waiting.front() else {
                state.is_watched = false;
                self.is_given_back = true;
                return;
            };
            let waited = first.since.elapsed();
            if waited < patience {
                pause = patience - waited;
            } else if state.open < lanes.most {
                state.is_watched = false;
                self.is_given_back = true;
                state.open += 1;
                break Lane::new(lanes, &self.state);
            } else {
                // Whichever lane is free first takes them.
                pause = patience;
            }
        };
        drop(self);
        serve(lane, settle).await;
    }
}

impl<Asked, Answer> Drop for Watch<Asked, Answer> {
    fn drop(&mut self) {
        if !self.is_given_back {
            lock(&self.state).is_watched = false;
        }
    }
}

async fn serve<Asked, Answer>(mut lane: Lane<Asked, Answer>, settle: Settle<Asked, Answer>) {
    // Those who come in the same breath go together.
    tokio::task::yield_now().await;
    loop {
        let group = lane.next();
        if group.is_empty() {
            return;
        }
        let size = group.len();
        let (asked, tell): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|waiting| (waiting.asked, waiting.tell))
            .unzip();
        for (tell, answer) in tell.into_iter().zip(settle(asked).await) {
            // Whoever asked may have gone.
            let _ = tell.send(answer);
        }
        if let Some(linger) = lane.lingers_after(size) {
            tokio::time::sleep(linger).await;
        }
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;

    use super::*;

    const LANES: Lanes = Lanes {
        most: 4,
        crowd: Crowd::Of(1),
        linger: None,
    };

    fn group() -> Group<u32, (u32, usize)> {
        Group::new(LANES)
    }

    /// Answers each with how many went together, once it is let.
    fn counted(gate: &Arc<Semaphore>) -> impl FnOnce() -> Settle<u32, (u32, usize)> {
        let gate = Arc::clone(gate);
        move || {
            Box::new(move |asked: Vec<u32>| {
                let gate = Arc::clone(&gate);
                Box::pin(async move {
                    gate.acquire().await.expect("open").forget();
                    assert!(!asked.contains(&666), "broken down");
                    let count = asked.len();
                    asked.into_iter().map(|one| (one, count)).collect()
                })
            })
        }
    }

    #[tokio::test]
    async fn a_lone_caller_waits_for_nobody() {
        let (group, gate) = (group(), Arc::new(Semaphore::new(3)));
        for number in 0..3 {
            assert_eq!(
                group.ask(number, 0, counted(&gate)).await,
                Some((number, 1))
            );
        }
    }

    #[tokio::test]
    async fn what_comes_while_others_are_under_way_goes_together_and_each_has_its_own_answer() {
        let (group, gate) = (group(), Arc::new(Semaphore::new(0)));
        let mut callers = JoinSet::new();
        let mut call = |number| {
            let (group, gate) = (group.clone(), Arc::clone(&gate));
            callers.spawn(async move { (number, group.ask(number, 0, counted(&gate)).await) });
        };
        let waiting = async |count| {
            // First let those come who were called.
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            assert_eq!(lock(&group.state).waiting.len(), count);
        };
        for number in 0..LANES.most {
            call(u32::try_from(number).expect("few"));
            waiting(0).await;
        }
        (10..110).for_each(call);
        waiting(100).await;
        gate.add_permits(100);
        let mut together = 0;
        while let Some(answered) = callers.join_next().await {
            let (number, answer) = answered.expect("no panic");
            let (own, count) = answer.expect("an answer");
            assert_eq!(own, number);
            together = together.max(count);
        }
        assert_eq!(together, 100);
    }

    #[tokio::test]
    async fn another_lane_is_opened_for_a_crowd_and_not_for_a_few() {
        let gate = Arc::new(Semaphore::new(0));
        let group = Group::new(Lanes {
            most: 2,
            crowd: Crowd::Of(50),
            ..LANES
        });
        let state = Arc::clone(&group.state);
        let mut callers = JoinSet::new();
        for number in 0..100 {
            // What the first lane serves it takes with it, before the others come.
            let (group, gate) = (group.clone(), Arc::clone(&gate));
            let asking = async move { group.ask(number, 0, counted(&gate)).await };
            callers.spawn(asking);
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            let lanes = if number < 50 { 1 } else { 2 };
            assert_eq!(lock(&state).open, lanes, "{number}");
        }
        gate.add_permits(100);
        while let Some(answer) = callers.join_next().await {
            assert!(answer.expect("no panic").is_some());
        }
    }

    #[tokio::test]
    async fn where_half_as_many_wait_as_are_under_way_they_go_and_no_sooner() {
        let gate = Arc::new(Semaphore::new(0));
        let group = Group::new(Lanes {
            crowd: Crowd::HalfUnderWay {
                patience: Duration::from_secs(3600),
            },
            ..LANES
        });
        let state = Arc::clone(&group.state);
        let mut callers = JoinSet::new();
        let mut call = async |count: u32| {
            for number in 0..count {
                let (group, gate) = (group.clone(), Arc::clone(&gate));
                callers.spawn(async move { group.ask(number, 0, counted(&gate)).await });
            }
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            let state = lock(&state);
            (state.open, state.under_way, state.waiting.len())
        };
        assert_eq!(call(1).await, (1, 1, 0), "a lone one at once");
        assert_eq!(call(1).await, (2, 2, 0));
        assert_eq!(call(1).await, (3, 3, 0));
        assert_eq!(call(1).await, (3, 3, 1), "too few");
        assert_eq!(call(1).await, (4, 5, 0), "together");
        assert_eq!(call(9).await, (4, 5, 9), "there are no more lanes");
        gate.add_permits(1);
        assert_eq!(call(0).await, (4, 13, 0), "the next one free takes them");
        assert_eq!(call(5).await, (4, 13, 5));
        gate.add_permits(3);
        let few_lanes = "two gave up, the third takes them";
        assert_eq!(call(0).await, (2, 14, 0), "{few_lanes}");
        gate.add_permits(100);
        let mut answered = 0;
        while let Some(answer) = callers.join_next().await {
            assert!(answer.expect("no panic").is_some());
            answered += 1;
        }
        assert_eq!(answered, 19);
        let state = lock(&state);
        assert_eq!((state.open, state.under_way), (0, 0), "given back");
    }

    #[tokio::test]
    async fn who_has_waited_for_long_goes_beside_a_group_that_is_held_up() {
        let group = Group::new(Lanes {
            crowd: Crowd::HalfUnderWay {
                patience: Duration::from_millis(20),
            },
            ..LANES
        });
        let held_up = Arc::new(Semaphore::new(0));
        let settle = || {
            let held_up = Arc::clone(&held_up);
            move || {
                Box::new(move |asked: Vec<u32>| -> BoxFuture<'static, Vec<u32>> {
                    let held_up = Arc::clone(&held_up);
                    Box::pin(async move {
                        if asked.contains(&0) {
                            held_up.acquire().await.expect("open").forget();
                        }
                        asked
                    })
                }) as Settle<u32, u32>
            }
        };
        let mut callers = JoinSet::new();
        for number in 0..100 {
            let (group, settle) = (group.clone(), settle());
            callers.spawn(async move { group.ask(number, 0, settle).await });
        }
        while lock(&group.state).under_way < 100 {
            tokio::task::yield_now().await;
        }
        for number in 100..103 {
            let answer = group.ask(number, 0, settle());
            let answer = tokio::time::timeout(Duration::from_secs(60), answer).await;
            assert_eq!(answer.expect("not held up"), Some(number));
        }
        assert_eq!(callers.len(), 100, "they are held up");
        held_up.add_permits(1);
        while let Some(answer) = callers.join_next().await {
            assert!(answer.expect("no panic").is_some());
        }
    }

    #[tokio::test]
    async fn heavy_ones_are_not_put_together() {
        let (group, gate) = (group(), Arc::new(Semaphore::new(100)));
        let asking = (0..10).map(|number| group.ask(number, HEAVIEST, counted(&gate)));
        for answer in futures_util::future::join_all(asking).await {
            assert_eq!(answer.map(|(_, count)| count), Some(1));
        }
    }

    #[tokio::test]
    async fn a_caller_who_leaves_takes_nobody_along() {
        let (group, gate) = (group(), Arc::new(Semaphore::new(0)));
        let mut impatient = Box::pin(group.ask(1, 0, counted(&gate)));
        assert!(
            tokio::time::timeout(Duration::from_millis(1), &mut impatient)
                .await
                .is_err()
        );
        let mut others = JoinSet::new();
        for number in 2..10 {
            let (group, gate) = (group.clone(), Arc::clone(&gate));
            others.spawn(async move { group.ask(number, 0, counted(&gate)).await });
        }
        tokio::task::yield_now().await;
        drop(impatient);
        gate.add_permits(100);
        while let Some(answer) = others.join_next().await {
            assert!(answer.expect("no panic").is_some());
        }
    }

    #[tokio::test]
    async fn a_group_that_breaks_down_leaves_nobody_waiting_and_the_next_is_served() {
        let (group, gate) = (group(), Arc::new(Semaphore::new(100)));
        assert_eq!(group.ask(666, 0, counted(&gate)).await, None);
        assert_eq!(group.ask(1, 0, counted(&gate)).await, Some((1, 1)));
        assert_eq!(lock(&group.state).open, 0, "given back");
    }

    #[test]
    fn a_watch_that_ends_with_its_runtime_is_given_back() {
        let group = Group::new(Lanes {
            crowd: Crowd::HalfUnderWay {
                patience: Duration::from_secs(600),
            },
            ..LANES
        });
        let gate = Arc::new(Semaphore::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            for number in 0..9 {
                group.tell(number, counted(&gate));
            }
            tokio::task::yield_now().await;
            // Too few to go beside nine, so that they are watched over.
            group.tell(9, counted(&gate));
            assert!(lock(&group.state).is_watched);
        });
        drop(runtime);
        assert!(!lock(&group.state).is_watched, "given back");
    }
}
