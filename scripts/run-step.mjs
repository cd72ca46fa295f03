// Runs one step of the checks or tests, shows its output as it comes, and counts its tests.
import { spawn } from 'node:child_process';

/**
 * Resolves to {passed, failed}: mocha's own counts where the step prints them, else one for the step.
 * A step that exits other than 0 has failed at least once, whatever it counted.
 */
export function runStep(title, command, args, options = {}) {
  return new Promise((resolve) => {
    const started = performance.now();
    const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    const take = (chunk) => {
      output += chunk;
      if (!options.quiet) process.stdout.write(chunk);
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.on('error', (error) => take(Buffer.from(`${error.message}\n`)));
    child.on('close', (code) => {
      const passing = sum(output, /^ *(\d+) passing/gm);
      let failed = sum(output, /^ *(\d+) failing/gm);
      if (code !== 0 && failed === 0) failed = 1;
      const passed = passing === 0 && failed === 0 ? 1 : passing;
      if (options.quiet && failed > 0) process.stdout.write(output);
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      console.log(`${failed === 0 ? 'ok' : 'FAILED'}  ${title} (${seconds} s)`);
      resolve({ passed, failed });
    });
  });
}

function sum(text, pattern) {
  return [...text.matchAll(pattern)].reduce((total, match) => total + Number(match[1]), 0);
}

/** Adds the counts of several steps. */
export function total(results) {
  return results.reduce(
    (all, one) => ({ passed: all.passed + one.passed, failed: all.failed + one.failed }),
    { passed: 0, failed: 0 },
  );
}
