from client_container.backoff import Backoff


def test_pauses_grow_to_the_cap_and_are_drawn_from_below_their_ceiling():
    backoff = Backoff(base_s=1, cap_s=8, chance=lambda: 0.5)

    pauses = [backoff.pause() for _ in range(6)]

    assert pauses == [0.5, 1, 2, 4, 4, 4]


def test_a_success_starts_over():
    backoff = Backoff(base_s=1, cap_s=60, chance=lambda: 1.0)
    for _ in range(5):
        backoff.pause()

    backoff.reset()

    assert backoff.pause() == 1


def test_the_server_may_ask_for_a_longer_pause_but_not_for_a_shorter_one():
    backoff = Backoff(base_s=4, cap_s=60, chance=lambda: 1.0)

    assert backoff.pause(retry_after=30) == 30
    assert backoff.pause(retry_after=0.1) == 8
