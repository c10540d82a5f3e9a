"""Every claim that the course tests: what was published, what we found, the verdict.

Numbers stand as `{{file list key=value}}` and come from data/results. A verdict is a
judgement, so a person writes it, after the numbers; until then it says so.
"""

from dataclasses import dataclass

PENDING = "Not measured yet."


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        number: "C3".
        text: the claim, in a sentence.
        published: what others reported.
        results: files below data/results that bear on it; empty where none can.
        ours: what we measured, with numbers from those files.
        verdict: "Holds ...", "Holds only when ...", "Does not hold here ...",
            or "Not tested: why".
    """

    number: str
    text: str
    published: str
    results: tuple[str, ...] = ()
    ours: str = ""
    verdict: str = PENDING


def human(k: int, execution: str, cvae: bool = True) -> str:
    """The number of a policy of the chunk-size table."""
    flag = str(cvae).lower()
    return (
        f"{{{{chunk_size summary demonstrator=human k={k} cvae={flag} "
        f"execution={execution}}}}}"
    )


def drift(expert: str, variant: str) -> str:
    """A number of the fair trial of single steps."""
    return f"{{{{claims/C01 summary expert={expert} variant={variant}}}}}"


CLAIMS = (
    Claim(
        "C1",
        "Single-step behaviour cloning drifts: small errors lead to unseen states, "
        "which lead to larger errors.",
        "Ross and Bagnell (2010): cost grows up to T² with the horizon T.",
        ("claims/C01", "single_step"),
        "Single steps, 50 demonstrations, 3000 updates. Of a planner: "
        f"{drift('scripted', 'absolute')}, k = 25 {drift('scripted', 'chunk-25')}; of "
        f"an expert that reacts to the state: {drift('feedback', 'absolute')}. "
        f"Human-like: absolute targets {drift('human', 'absolute')}, deltas "
        f"{drift('human', 'delta')}, two observations {drift('human', 'history-2')}, "
        f"deltas and input noise {drift('human', 'delta-noise')}, DART "
        f"{drift('human', 'dart')}, DAgger {drift('human', 'dagger')}, k = 25 "
        f"{drift('human', 'chunk-25')}. The error added up to T grows like T to the "
        "power {{claims/C01 horizon expert=scripted variant=absolute -> power 1}} "
        "(k = 1) and {{claims/C01 horizon expert=scripted variant=chunk-25 -> power "
        "1}} (k = 25).",
        "Holds only for demonstrations that follow a plan in time: cloned from an "
        "expert that reacts to the state, single steps do not drift. Corrected labels "
        "(DAgger) rescue most, input noise some; a longer history rescues nothing, "
        "deltas little, DART differs from seed to seed. No rescue reaches a chunk.",
    ),
    Claim(
        "C2",
        "A chunk of k actions cuts the effective horizon by k.",
        "Zhao et al.: k = 1 gives 1 %, k = 100 gives 44 %, a slight loss above.",
        ("chunk_size",),
        "Human-like demonstrations, half of each chunk executed: k = 1 "
        f"{human(1, 'half')}, k = 10 {human(10, 'half')}, k = 25 {human(25, 'half')}, "
        f"k = 50 {human(50, 'half')}, k = 100 {human(100, 'half')}. Scripted: k = 1 "
        "{{chunk_size summary demonstrator=scripted k=1 cvae=true execution=half}}, "
        "k = 50 {{chunk_size summary demonstrator=scripted k=50 cvae=true "
        "execution=half}}.",
        "Holds on human-like demonstrations: success climbs steeply to k = 25 and is "
        "flat from k = 50; on scripted ones single steps already do well, so chunks "
        "have less to win.",
    ),
    Claim(
        "C3",
        "Temporal ensembling helps.",
        "Zhao et al.: 3.3 points more. LeRobot, one checkpoint: 87.6 % without, "
        "70.8 % with m = 0.01.",
        ("chunk_size",),
        "Human-like demonstrations, half of each chunk against an ensemble with "
        f"m = 0.01: k = 10 {human(10, 'half')} and {human(10, 'ensemble')}; k = 50 "
        f"{human(50, 'half')} and {human(50, 'ensemble')}; k = 100 "
        f"{human(100, 'half')} and {human(100, 'ensemble')}.",
        "Holds only when chunks are short: at k = 10 it helps, at k = 50 and 100 it "
        "hurts. Either way it smooths: the jerk falls to less than half.",
    ),
    Claim(
        "C4",
        "The ensembling weights are exp(-m i) with i = 0 the oldest prediction, so "
        "m > 0 favours old ones.",
        "The paper and the original code say so; articles contradict each other.",
        ("claims/C04",),
        "k = 50, oldest first: m = -0.1 {{claims/C04 summary order=oldest_first "
        "m=-0.1}}, m = 0 {{claims/C04 summary order=oldest_first m=0.0}}, m = 0.1 "
        "{{claims/C04 summary order=oldest_first m=0.1}}; newest first with -m gives "
        "the same numbers.",
        "Holds: i counts from the oldest, and counting from the newest is the same "
        "with the sign of m turned. Favouring either end did not beat the plain mean "
        "here.",
    ),
    Claim(
        "C5",
        "The CVAE matters for human demonstrations and not for scripted ones.",
        "Zhao et al.: without it 35.3 % becomes 2 % on human data; scripted about "
        "unchanged.",
        ("claims/C05", "chunk_size"),
        "k = 5 to 100 together: human-like {{claims/C05 summary demonstrator=human "
        "cvae=true}} with the CVAE, {{claims/C05 summary demonstrator=human "
        "cvae=false}} without; scripted {{claims/C05 summary demonstrator=scripted "
        "cvae=true}} and {{claims/C05 summary demonstrator=scripted cvae=false}}.",
        "Does not hold here: with the KL weight of these policies z collapses, and "
        "nothing is lost without it, on human-like demonstrations either.",
    ),
    Claim(
        "C6",
        "A KL weight of 10 balances; 0 is plain cloning; above 100 the data is "
        "ignored.",
        "A tuning guide; the KL is summed over the latent in the original, averaged in "
        "one article's code.",
        ("claims/C06",),
        "z = 0 at test, KL summed over 16 dimensions: weight 0 {{claims/C06 summary "
        "kl_weight=0.0 reduction=sum}} (KL {{claims/C06 summary kl_weight=0.0 "
        "reduction=sum -> kl 0}} nats), 0.001 {{claims/C06 summary kl_weight=0.001 "
        "reduction=sum}} ({{claims/C06 summary kl_weight=0.001 reduction=sum -> kl 0}} "
        "nats), 0.01 {{claims/C06 summary kl_weight=0.01 reduction=sum}} "
        "({{claims/C06 summary kl_weight=0.01 reduction=sum -> kl 4}} nats), 10 "
        "{{claims/C06 summary kl_weight=10.0 reduction=sum}}; without a CVAE "
        "{{claims/C06 summary kl_weight=none}}. Averaged instead, 0.01 gives "
        "{{claims/C06 summary kl_weight=0.01 reduction=mean}}.",
        "Does not hold here: weight 0 is not plain cloning but an autoencoder whose "
        "z = 0 means nothing; from 0.01 on z has collapsed and the weight no longer "
        "matters. The reduction matters as much as the weight. Weights above 10 were "
        "not tried.",
    ),
    Claim(
        "C7",
        "At test time z = 0, or a sample of the prior.",
        "Zhao et al.: z = 0. One article: a sample.",
        ("claims/C07",),
        "KL weight 1: z = 0 {{claims/C07 summary kl_weight=1.0 reduction=sum z=zero}}, "
        "z drawn {{claims/C07 summary kl_weight=1.0 reduction=sum z=drawn}}. KL weight "
        "0.001: {{claims/C07 summary kl_weight=0.001 reduction=sum z=zero}} and "
        "{{claims/C07 summary kl_weight=0.001 reduction=sum z=drawn}}.",
        "Holds only when z has collapsed, and then both are the same. Where the "
        "decoder uses z, neither works here: the posteriors leave the prior empty.",
    ),
    Claim(
        "C8",
        "L1 beats L2, and absolute joint targets beat deltas.",
        "Zhao et al., in words.",
        ("claims/C08",),
        "k = 25, human-like, equal updates: L1 and absolute targets {{claims/C08 "
        "summary loss=l1 target=absolute}}, L2 {{claims/C08 summary loss=l2 "
        "target=absolute}}, L1 and deltas {{claims/C08 summary loss=l1 target=delta}}, "
        "L2 and deltas {{claims/C08 summary loss=l2 target=delta}}.",
        "Holds, for chunks. For single steps deltas are the better target (C1).",
    ),
    Claim(
        "C9",
        "The decoder needs 7 layers.",
        "The paper's table; but the original code returns the first layer's output, "
        "and LeRobot has one layer.",
        ("claims/C09",),
        "Equal updates: one layer {{claims/C09 summary layers=1 output=last}}; seven, "
        "of which only the first is used, {{claims/C09 summary layers=7 "
        "output=first}}; all seven in use {{claims/C09 summary layers=7 output=last}}, "
        "in {{claims/C09 summary layers=7 output=last -> train_seconds_mean 0}} s of "
        "training instead of {{claims/C09 summary layers=1 output=last -> "
        "train_seconds_mean 0}} s.",
        "Does not hold here: as the original code runs them, six of the seven do "
        "nothing. All seven in use gain a few points for six times the training.",
    ),
    Claim(
        "C10",
        "50 demonstrations are enough.",
        "Zhao et al.: 50. Articles: 50-100 for simple tasks, 200-400 for insertion.",
        ("claims/C10", "vision"),
        "Equal updates, human-like, the cube's pose as input: 10 demonstrations "
        "{{claims/C10 summary demonstrations=10}}, 25 {{claims/C10 summary "
        "demonstrations=25}}, 50 {{claims/C10 summary demonstrations=50}}, 100 "
        "{{claims/C10 summary demonstrations=100}}, 200 {{claims/C10 summary "
        "demonstrations=200}}. With cameras: 50 {{vision summary demonstrations=50}}, "
        "100 {{vision summary demonstrations=100}}, 200 {{vision summary "
        "demonstrations=200}}.",
        "Holds for this simple task: 50 reach most of what 200 reach when the cube's "
        "pose is known. From pictures the step from 50 to 200 is larger, and worth it.",
    ),
    Claim(
        "C11",
        "A chunk should be as long as one sub-motion: its duration times the control "
        "rate, rounded up to 25.",
        "A tuning guide: 0.5 to 4 s at 50 Hz.",
        ("claims/C11", "chunk_size"),
        "30 Hz, human-like: the rule gives k = {{claims/C11 rule demonstrator=human "
        "-> k 0}} with {{claims/C11 rule demonstrator=human}}, the best was k = "
        "{{claims/C11 rule demonstrator=human -> best_k 0}} with {{claims/C11 rule "
        "demonstrator=human -> best_success percent}}. 50 Hz: k = 25 {{claims/C11 "
        "fifty k=25}}, k = 50 {{claims/C11 fifty k=50}}.",
        "Holds only as a first guess: it is near the best, and a chunk of two "
        "sub-motions was better at 30 Hz. Seconds carry over to 50 Hz, ticks do not.",
    ),
    Claim(
        "C12",
        "Too small a chunk hesitates and gets stuck at pauses; a chunk carries a pause "
        "through.",
        "Zhao et al., in words.",
        ("claims/C12",),
        "Scripted demonstrations without pauses: k = 1 {{claims/C12 summary "
        "pauses=none k=1}}, k = 50 {{claims/C12 summary pauses=none k=50}}. With a "
        "pause of 0 to 1 s after each move: k = 1 {{claims/C12 summary pauses=random "
        "k=1}}, standing still {{claims/C12 summary pauses=random k=1 -> frozen "
        "percent}} of the time, k = 10 {{claims/C12 summary pauses=random k=10}}, "
        "k = 50 {{claims/C12 summary pauses=random k=50}}.",
        "Holds, and more than anything else here: pauses alone turn a single-step "
        "policy that nearly always succeeds into one that never does; a chunk longer "
        "than the pause hardly notices.",
    ),
    Claim(
        "C13",
        "A single-step policy learns to copy the last action; predicting further ahead "
        "breaks the shortcut.",
        "An article on driving.",
        ("claims/C13",),
        "Human-like, delta targets, k = 1: without the last action as an input "
        "{{claims/C13 summary target=delta k=1 last_action=false}} (error of the next "
        "action on held-out demonstrations {{claims/C13 summary target=delta k=1 "
        "last_action=false -> error_rad 4}} rad), with it {{claims/C13 summary "
        "target=delta k=1 last_action=true}} ({{claims/C13 summary target=delta k=1 "
        "last_action=true -> error_rad 4}} rad). k = 25: {{claims/C13 summary "
        "target=delta k=25 last_action=false}} and {{claims/C13 summary target=delta "
        "k=25 last_action=true}}.",
        "Does not hold here: seeing the last action makes the error on the expert's "
        "states several times smaller, as the shortcut should, but it costs no "
        "success. The small error is what misleads.",
    ),
    Claim(
        "C14",
        "A chunk cannot react: in a stochastic world, executing more of it hurts.",
        "The papers on real-time chunking and on bidirectional decoding.",
        ("claims/C14",),
        "k = 50, the cube pushed by 3 to 5 cm mid-reach: executing 1 action a chunk "
        "{{claims/C14 summary execute=1 pushed=true}}, 5 {{claims/C14 summary "
        "execute=5 pushed=true}}, 10 {{claims/C14 summary execute=10 pushed=true}}, 25 "
        "{{claims/C14 summary execute=25 pushed=true}}, 50 {{claims/C14 summary "
        "execute=50 pushed=true}}; left alone, 10 {{claims/C14 summary execute=10 "
        "pushed=false}} and 25 {{claims/C14 summary execute=25 pushed=false}}.",
        "Holds only beyond some length: pushed, executing more than 10 hurts; but "
        "executing fewer hurts too, pushed or not.",
    ),
    Claim(
        "C15",
        "ACT averages two valid strategies; diffusion and flow matching do not.",
        "Articles.",
        ("claims/C15",),
        "Two ways around a post, half of the demonstrators go left; whole chunks of "
        "20. Without a CVAE: L2 {{claims/C15 summary variant=l2 left=0.5 execute=20 "
        "z=zero}}, L1 {{claims/C15 summary variant=l1 left=0.5 execute=20 z=zero}}; "
        "with one and z drawn: KL weight 1 {{claims/C15 summary variant=cvae "
        "kl_weight=1.0 left=0.5 execute=20 z=drawn}}, 0.1 {{claims/C15 summary "
        "variant=cvae kl_weight=0.1 left=0.5 execute=20 z=drawn}}. One action at a "
        "time, L2 passes in {{claims/C15 summary variant=l2 left=0.5 execute=1 "
        "z=zero}}.",
        "Holds only for L2 and long execution: the mean of two ways hits the post. "
        "L1, ACT's loss, takes the median, so mostly one of the ways, and a latent "
        "that carries a nat does better still. Diffusion and flow matching were not "
        "run.",
    ),
    Claim(
        "C16",
        "Gripper timing that varies makes ACT predict 'half open'; a threshold or "
        "consistent timing mends it.",
        "A list of failures.",
        ("claims/C16",),
        "Three kinds of demonstrations, which differ in the jaw's timing only, L1: "
        "always alike {{claims/C16 summary timing=steady loss=l1 gripper='as asked'}}, "
        "human-like {{claims/C16 summary timing=human loss=l1 gripper='as asked'}}, "
        "hesitant {{claims/C16 summary timing=hesitant loss=l1 gripper='as asked'}}. "
        "Half-open predictions: {{claims/C16 summary timing=steady loss=l1 "
        "gripper='as asked' -> half_open.predicted percent}}, {{claims/C16 summary "
        "timing=human loss=l1 gripper='as asked' -> half_open.predicted percent}}, "
        "{{claims/C16 summary timing=hesitant loss=l1 gripper='as asked' -> "
        "half_open.predicted percent}} (demonstrated, hesitant: {{claims/C16 summary "
        "timing=hesitant loss=l1 gripper='as asked' -> half_open.demonstrated "
        "percent}}); with L2 and hesitant "
        "timing {{claims/C16 summary timing=hesitant loss=l2 gripper='as asked' -> "
        "half_open.predicted percent}} and {{claims/C16 summary timing=hesitant "
        "loss=l2 gripper='as asked'}}. Open or closed only, hesitant, L1: {{claims/C16 "
        "summary timing=hesitant loss=l1 gripper='open or closed'}}.",
        "Holds only with L2, which averages: hesitant timing then costs more than "
        "a third of the successes. With L1, which takes the median, it costs a few "
        "points at most. A threshold mends neither, and costs successes itself.",
    ),
    Claim(
        "C17",
        "ACT infers at 50 Hz and more.",
        "Zhao et al.: 10 ms on a 2080 Ti. An article: 20 ms on a 3060 to 5 ms on an "
        "H100.",
        ("claims/C17", "claims/C17_gpu"),
        "On a CPU: the state policy on one thread {{claims/C17 summary network=small "
        "device=cpu-1 -> hertz 0}} Hz, the vision policy (two 96 x 128 cameras) "
        "{{claims/C17 summary network=medium device=cpu-1 -> hertz 0}} Hz, the paper's "
        "size with four 480 x 640 cameras on two threads {{claims/C17 summary "
        "network=paper device=cpu-all -> hertz 1}} Hz. That on an H100: "
        "{{claims/C17_gpu summary network=paper -> hertz 0}} Hz.",
        "Holds only by size: the compact policies of this course are ten times faster "
        "than that on one CPU core, the paper's network needs a GPU.",
    ),
    Claim(
        "C18",
        "A learning rate of 1e-5; 1e-4 is unstable, 1e-6 too slow.",
        "A tuning guide.",
        ("claims/C18",),
        "State policy (150 thousand numbers), batch of 64, 1000 updates with warm-up "
        "and cosine: 1e-6 {{claims/C18 summary lr=1e-6}}, 1e-5 {{claims/C18 summary "
        "lr=1e-5}}, 1e-4 {{claims/C18 summary lr=1e-4}}, 1e-3 {{claims/C18 summary "
        "lr=1e-3}}, 1e-2 {{claims/C18 summary lr=1e-2}}.",
        "Does not hold here: a small network wants a rate a thousand times larger. "
        "The advice belongs to the paper's 80 million numbers, which were not trained.",
    ),
    Claim(
        "C19",
        "Train 2000 epochs; success comes late and the loss is a poor guide.",
        "The original code, whose epoch draws one step of each episode: 2000 epochs "
        "are about 10 000 updates.",
        ("claims/C19",),
        "Three runs, nine checkpoints each: after 200 updates {{claims/C19 summary "
        "step=200}}, 600 {{claims/C19 summary step=600}}, 1200 {{claims/C19 summary "
        "step=1200}}, 2000 {{claims/C19 summary step=2000}}. Rank correlation of "
        "success with the validation loss at z = 0: {{claims/C19 correlation.all -> "
        "val 2}} over all checkpoints, {{claims/C19 correlation.late -> val 2}} over "
        "the later half; with the training loss {{claims/C19 correlation.all -> train "
        "2}} and {{claims/C19 correlation.late -> train 2}}.",
        "Holds only in part: success comes early here, within 600 updates, and stays. "
        "While it rises, any loss is a good guide. Afterwards neither is: the training "
        "loss keeps falling, the validation loss rises while success stays.",
    ),
    Claim(
        "C20",
        "Actions must be normalised, or joints of different scales break training.",
        "A tuning guide.",
        ("claims/C20",),
        "State policy, a plain training of 1000 updates: normalised {{claims/C20 "
        "summary statistics=standard}}, not {{claims/C20 summary statistics=none}}. A "
        "joint that never moved, displaced by 1 degree: error {{claims/C20 still "
        "floor=0.01 degrees=1.0 -> l1 2}} with a floor of 0.01 rad on the deviation, "
        "{{claims/C20 still floor=1e-08 degrees=1.0 -> l1 2}} without.",
        "Holds only in part: radians and metres are of one size, so leaving them as "
        "they are costs some successes and breaks nothing. A missing floor is worse: a "
        "joint that never moved then ruins every prediction.",
    ),
    Claim(
        "C21",
        "Cameras must not move: any shift hurts.",
        "A checklist.",
        ("claims/C21",),
        "The committed vision policy, trained with shifts of 4 pixels (1.8 cm): where "
        "it was {{claims/C21 summary axis=none}}; moved by 2 cm to the right "
        "{{claims/C21 summary axis=x shift_cm=2}}, by 5 cm {{claims/C21 summary axis=x "
        "shift_cm=5}}; by 5 cm towards the base {{claims/C21 summary axis=y "
        "shift_cm=5}} or up {{claims/C21 summary axis=z shift_cm=5}}.",
        "Holds only beyond what the augmentation covers: up to 2 cm nothing is lost, "
        "5 cm sideways is ruin.",
    ),
    Claim(
        "C22",
        "Few consistent demonstrations beat many noisy ones.",
        "A checklist.",
        ("claims/C22",),
        "The same updates on 50 scripted {{claims/C22 summary demonstrator=scripted "
        "demonstrations=50}}, 50 human-like {{claims/C22 summary demonstrator=human "
        "demonstrations=50}}, 200 human-like {{claims/C22 summary demonstrator=human "
        "demonstrations=200}}.",
        "Holds only at equal numbers: 50 clean ones beat 50 noisy ones; 200 noisy ones "
        "come level with 50 clean ones.",
    ),
    Claim(
        "C25",
        "The paper's success rates, as articles print them.",
        "Zhao et al.: Transfer Cube 86 % (scripted) and 50 % (human), Insertion 32 % "
        "and 20 %; Ziploc 88 %, Battery 96 %, Cup 84 %, Velcro 20 %, Tape 64 %, "
        "Shoe 92 %.",
        ("claims/C25",),
        "Nothing was run. Of {{claims/C25 n}} tasks that the paper and one article "
        "both list, {{claims/C25 agreeing}} have the same number.",
        "Holds that tables differ: cite the paper.",
    ),
    Claim(
        "C28",
        "Two arms need one policy over one action vector.",
        "Zhao et al. have one policy for the joints of both arms, and no comparison.",
        ("claims/C28",),
        "Handover by two OpenArms, 50 human-like demonstrations, the bar's pose as "
        "input, 4000 updates a network. One policy for all 16 numbers {{claims/C28 "
        "summary policies=one sees=both}}; two side by side, each for one arm and "
        "shown that arm's joints, {{claims/C28 summary policies=two sees=own}}; the "
        "same two, shown the joints of both arms, {{claims/C28 summary policies=two "
        "sees=both}}. Failures once the bar was up: {{claims/C28 summary policies=one "
        "sees=both -> changing_hands 0}}, {{claims/C28 summary policies=two sees=own "
        "-> changing_hands 0}} and {{claims/C28 summary policies=two sees=both -> "
        "changing_hands 0}}.",
        "Does not hold here: two policies do as well, with twice the numbers to train, "
        "as long as each sees both arms. Without that the right hand lets go too "
        "early, or never: nothing that it sees says whether the left has the bar. What "
        "one policy brings is that it sees everything anyway.",
    ),
)
