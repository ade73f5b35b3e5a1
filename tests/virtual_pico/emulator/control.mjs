// Commands and answers, a JSON object a line:
//
//   {"id": 1, "command": "fault", "link": "silent"}   ->   {"id": 1, "result": null}
//                                                     or   {"id": 1, "error": "no fault …"}
//   events: {"event": "boot", "cause": "watchdog"}

import readline from 'node:readline';

export class Control {
  tell(message) {
    process.stdout.write(JSON.stringify(message) + '\n');
  }

  // handle  (name, parameters) => the result; what it throws is the answer then
  serve(handle) {
    const lines = readline.createInterface({ input: process.stdin });
    lines.on('line', (line) => {
      const { id, command, ...parameters } = JSON.parse(line);
      try {
        this.tell({ id, result: handle(command, parameters) ?? null });
      } catch (error) {
        this.tell({ id, error: error.message });
      }
    });
    lines.on('close', () => process.exit(0));
  }
}
