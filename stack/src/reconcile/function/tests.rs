use super::super::counts::Tally;
use super::*;

/// Where there are places enough.
async fn enter(function: &Function, patience: Duration) -> Option<Running> {
    match function.enter(patience, &Semaphore::new(1)).await {
        Entry::Inside(running) => Some(running),
        Entry::Closed => None,
        Entry::Crowded => panic!("there are places"),
    }
}

#[tokio::test]
async fn who_finds_no_place_to_wait_is_turned_away_and_disturbs_nobody() {
    let (function, _mail) = alone();
    let (function, all) = (Arc::new(function), Arc::new(Semaphore::new(WAITING + 1)));
    function.starting();
    let patience = Duration::from_secs(60);
    let wait = || {
        let (function, all) = (function.clone(), all.clone());
        tokio::spawn(async move { function.enter(patience, &all).await })
    };
    let all_wait = async || {
        while function.waiting() < WAITING {
            tokio::task::yield_now().await;
        }
    };
    let mut waiting: Vec<_> = (0..WAITING).map(|_| wait()).collect();
    all_wait().await;
    assert!(matches!(function.enter(patience, &all).await, Entry::Crowded));
    // Who leaves gives the place back.
    let left = waiting.swap_remove(7);
    left.abort();
    assert!(left.await.is_err());
    assert_eq!(function.waiting(), WAITING - 1);
    // All functions together have places, too.
    assert!(matches!(function.enter(patience, &Semaphore::new(0)).await, Entry::Crowded));
    waiting.push(wait());
    all_wait().await;
    function.let_in(Arc::new(Endpoint::new(([10, 62, 0, 2], 8080).into())));
    for call in waiting {
        assert!(matches!(call.await, Ok(Entry::Inside(_))));
    }
    assert_eq!((function.waiting(), all.available_permits()), (0, WAITING + 1));
    // Who need not wait needs no place.
    assert!(matches!(function.enter(patience, &Semaphore::new(0)).await, Entry::Inside(_)));
}

#[tokio::test]
async fn it_is_closed_only_while_nobody_calls() {
    let (function, _mail) = alone();
    let function = Arc::new(function);
    function.starting();
    assert!(function.idle().is_none() && !function.close_if_idle(Duration::ZERO));
    function.let_in(Arc::new(Endpoint::new(([10, 62, 0, 2], 8080).into())));
    assert!(!function.close_if_idle(Duration::from_secs(3600)));
    let call = Tally::begin(function.clone());
    assert!(function.idle().is_none() && !function.close_if_idle(Duration::ZERO));
    drop(call);
    assert!(function.idle().is_some() && function.close_if_idle(Duration::ZERO));
    assert!(matches!(function.state(), State::Idle));
}

#[tokio::test]
async fn calls_that_waited_are_answered_before_others_begin() {
    let (function, _mail) = alone();
    let function = Arc::new(function);
    function.answered(Duration::from_secs(5)).await;
    function.starting();
    let patience = Duration::from_secs(60);
    let call = tokio::spawn({
        let function = function.clone();
        async move { enter(&function, patience).await.unwrap() }
    });
    tokio::task::yield_now().await;
    let answered = tokio::spawn({
        let function = function.clone();
        async move { function.answered(patience).await }
    });
    tokio::task::yield_now().await;
    assert!(!answered.is_finished());
    function.let_in(Arc::new(Endpoint::new(([10, 62, 0, 2], 8080).into())));
    let running = call.await.unwrap();
    tokio::task::yield_now().await;
    assert!(!answered.is_finished());
    drop(running);
    answered.await.unwrap();
}

#[tokio::test]
async fn calls_wait_only_when_the_last_instance_has_left() {
    let (function, _mail) = alone();
    let endpoint = |last| Arc::new(Endpoint::new(([10, 62, 0, last], 8080).into()));
    let (one, two) = (endpoint(2), endpoint(3));
    function.let_in(one.clone());
    function.let_in(two.clone());
    assert_eq!(function.available(), 2);
    function.failed("a third one does not start");
    function.left(&one);
    assert_eq!(enter(&function, Duration::ZERO).await.unwrap().address(), two.address);
    function.left(&two);
    assert!(matches!(function.state(), State::Starting));
    function.failed("none does");
    assert!(enter(&function, Duration::from_secs(60)).await.is_none());
    // What was left for good does not come back.
    function.let_in(two);
    assert_eq!(function.available(), 0);
}

#[tokio::test]
async fn calls_are_let_in_again_when_no_reason_is_left() {
    let (function, _mail) = alone();
    let endpoint = Arc::new(Endpoint::new(([10, 62, 0, 4], 8080).into()));
    function.switch(vec![endpoint.clone()]);
    assert!(function.pause(&endpoint, Silence::Deaf) && !function.pause(&endpoint, Silence::Deaf));
    assert!(function.pause(&endpoint, Silence::Unready));
    assert_eq!(function.available(), 0);
    function.resume(endpoint.clone(), Silence::Deaf);
    assert_eq!(function.available(), 0);
    function.resume(endpoint.clone(), Silence::Unready);
    assert_eq!(function.available(), 1);
    // Not into what rests: it may be frozen.
    assert!(function.pause(&endpoint, Silence::Deaf));
    function.close();
    function.resume(endpoint.clone(), Silence::Deaf);
    function.arrived(endpoint.clone());
    assert!(matches!(function.state(), State::Idle));
    function.let_in(endpoint);
    assert_eq!(function.available(), 1);
}

#[tokio::test]
async fn many_reasons_are_one_look_and_one_wish() {
    let (function, mut mail) = alone();
    for _ in 0..100 {
        function.look_again();
    }
    assert_eq!(mail.len(), 1);
    mail.recv().await;
    function.looking();
    function.look_again();
    assert_eq!(mail.len(), 1);
    for _ in 0..100 {
        function.wake();
    }
    assert_eq!(mail.len(), 2);
}

#[tokio::test]
async fn a_call_that_was_let_in_is_waited_for_and_an_ended_process_takes_no_more() {
    let (function, _mail) = alone();
    let endpoint = Arc::new(Endpoint::new(([10, 62, 0, 2], 8080).into()));
    function.let_in(endpoint.clone());
    let call = enter(&function, Duration::ZERO).await.unwrap();
    function.left(&Arc::new(Endpoint::new(endpoint.address)));
    assert!(matches!(function.state(), State::Ready(_)), "another instance's end");
    function.left(&endpoint);
    assert!(enter(&function, Duration::from_millis(1)).await.is_none());
    let waiting = tokio::spawn(async move { endpoint.drained(Duration::from_secs(60)).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(call);
    waiting.await.unwrap();
}
