// `cribus images`: every image by name and tag.

import * as cri from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Invocation } from '../arguments.ts';
import { imageTable } from '../cri-tables.ts';
import { withStackClient } from '../stack/stack-client.ts';

export async function runImages(invocation: Invocation): Promise<number> {
  return withStackClient(invocation, async (client) => {
    const answer = await client.call('listImages', cri.ListImagesRequest.fromPartial({}));
    for (const line of imageTable(answer.images)) console.log(line);
    return 0;
  });
}
