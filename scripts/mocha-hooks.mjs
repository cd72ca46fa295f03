// What every file of tests ends with.
import { lstatSync } from 'node:fs';

export const mochaHooks = {
  /**
   * Node's realpathSync goes by the file that was looked at last: after a FIFO or a socket it takes no link
   * of a module's path, and the next file of tests that this process loads can't be loaded.
   */
  afterAll() {
    lstatSync('/');
  },
};
