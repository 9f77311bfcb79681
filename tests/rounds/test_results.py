import os
import pickle

from lightning_lottery.rounds.results import Mailbox


def test_mail_from_the_process_itself_is_never_sent(tmp_path):
    box = Mailbox()
    box.send(tmp_path)
    assert box.receive() is None


def test_a_copy_in_another_process_says_once_where_the_folder_is(tmp_path):
    box = Mailbox()
    if not (child := os.fork()):
        copy = pickle.loads(pickle.dumps(box))
        copy.send(tmp_path)
        os._exit(0 if copy.receive() is None else 1)  # it is for the owner alone
    assert os.waitpid(child, 0)[1] == 0
    assert box.receive() == tmp_path
    assert box.receive() is None


def test_a_folder_that_is_gone_is_no_news(tmp_path):
    box = Mailbox()
    if not (child := os.fork()):
        box.send(tmp_path / "gone")
        os._exit(0)
    os.waitpid(child, 0)
    assert box.receive() is None
