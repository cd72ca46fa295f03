// Certificates for one test run, made by openssl: an authority, a server on loopback, and a client.

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Certificate {
  readonly certFile: string;
  readonly keyFile: string;
  readonly cert: string;
  readonly key: string;
}

export interface Certificates {
  readonly authority: Certificate;
  /** For 127.0.0.1 and localhost. */
  readonly server: Certificate;
  readonly client: Certificate;
  /** An authority that has signed nothing here. */
  readonly stranger: Certificate;
}

/** Writes them below an existing directory. */
export function makeCertificates(directory: string): Certificates {
  const authority = makeAuthority(directory, 'authority');
  return {
    authority,
    server: sign(directory, 'server', {
      authority,
      extensions: 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n',
    }),
    client: sign(directory, 'client', { authority, extensions: 'extendedKeyUsage=clientAuth\n' }),
    stranger: makeAuthority(directory, 'stranger'),
  };
}

function makeAuthority(directory: string, name: string): Certificate {
  const files = filesOf(directory, name);
  openssl(
    ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
    ['-days', '2', '-subj', `/CN=${name}`, '-addext', 'basicConstraints=critical,CA:TRUE'],
    ['-keyout', files.keyFile, '-out', files.certFile],
  );
  return read(files);
}

function sign(
  directory: string,
  name: string,
  options: { readonly authority: Certificate; readonly extensions: string },
): Certificate {
  const files = filesOf(directory, name);
  const { authority, extensions } = options;
  const request = join(directory, `${name}.csr`);
  const extensionsFile = join(directory, `${name}.ext`);
  writeFileSync(extensionsFile, extensions);
  openssl(
    ['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
    ['-subj', `/CN=${name}`, '-keyout', files.keyFile, '-out', request],
  );
  openssl(
    ['x509', '-req', '-in', request, '-CA', authority.certFile, '-CAkey', authority.keyFile],
    ['-CAcreateserial', '-days', '2', '-extfile', extensionsFile, '-out', files.certFile],
  );
  return read(files);
}

function filesOf(directory: string, name: string) {
  return { certFile: join(directory, `${name}.crt`), keyFile: join(directory, `${name}.key`) };
}

function read(files: { readonly certFile: string; readonly keyFile: string }): Certificate {
  return {
    ...files,
    cert: readFileSync(files.certFile, 'utf8'),
    key: readFileSync(files.keyFile, 'utf8'),
  };
}

function openssl(...args: readonly (readonly string[])[]): void {
  execFileSync('openssl', args.flat(), { stdio: 'pipe' });
}
