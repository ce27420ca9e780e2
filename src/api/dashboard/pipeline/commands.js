// The commands, what each does, and to whom it goes. No page: tested by itself.

export const COMMANDS = [
  { command: "pause", label: "Pause", does: "Writes what was received so far to the store, then holds. Goes on receiving: nothing is lost." },
  { command: "resume", label: "Resume", does: "Writes to the store again." },
  { command: "flush", label: "Flush", does: "Writes everything received so far to the store, also while paused." },
  { command: "reset", label: "Reset", does: "Deletes the latest-state keys and closes the open run. Stored rows stay.", asks: true },
  { command: "status", label: "Status", does: "Answers with the status, which shows that commands arrive." },
];

/** To whom commands can go from a daemon, or from a server without a pipeline (`serve`): the first unless somebody chooses. */
export function targets(instance, hasPipeline) {
  const everyone = {
    value: "everyone", target: null, label: "Every daemon and every trainer on the control channel",
    does: "Trainers that listen there pause, resume and reset their training, too.",
  };
  const own = { value: "own", target: instance, label: `This daemon, ${instance}`, does: "Other daemons and trainers are not affected." };
  const daemons = {
    value: "daemons", target: "ingest", label: "Every daemon on the control channel",
    does: "This server only reads: its commands go to the daemons that listen there. Trainers are not affected.",
  };
  return [hasPipeline ? own : daemons, everyone];
}

/** What is asked before a command that needs it. */
export function question({ command, does }, { label }) {
  return { title: `Send ${command}?`, text: `To: ${label}. ${does} The next message without a run id begins a new run.`, act: `Send ${command}` };
}

/** Why there are no commands for somebody who may not send them. */
export const withoutRight = (user, scope) =>
  (user ? `You are signed in as ${user} (${scope}). ` : "") + "Commands need a token with the scope `admin`: sign in with one to pause, resume, flush or reset.";
